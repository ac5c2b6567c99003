"""The coordinator's half of a secure sum over the mailbox: who shares, who survives, and the masks of the sum.

Everything it knows is in the mailbox, in the order in which it was left there, so a coordinator that starts again reads
itself back to where it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from koinon.core.types import Purpose
from koinon.errors import FormatError, ProtocolError
from koinon.fleet.coordinator.key_holder import KeyHolder
from koinon.fleet.coordinator.mailbox import SERVER, Address, Mailbox
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.secure_terms import attempt_of, stage_name
from koinon.fleet.wire.signatures import PublicKey, Signed
from koinon.privacy.secure_sum.messages import Survivors
from koinon.privacy.secure_sum.neighbours import quorum
from koinon.privacy.secure_sum.roster import Roster
from koinon.privacy.secure_sum.server import Server, Stage, arrived, close, take
from koinon.privacy.secure_sum.terms import Terms
from koinon.privacy.secure_sum.wire import Kind, joined, kind_of

_SHARE = 0.25  # of a stage's time that its keys may take, and again its shares; of its least, that the last codes may
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Office:
    """The mailbox of one stage of a run, and the keys of its clients."""

    mailbox: Mailbox
    keys: Mapping[str, PublicKey]
    run: str
    round: int
    purpose: Purpose
    signed: Signed = PublicKey.signed
    roster: Roster | None = None  # who may take part
    holders: tuple[KeyHolder, ...] = ()  # who decrypts an encrypted sum
    blinds: bytes = b""  # the secret under which such a sum is shown to them

    def at(self, attempt: int, stage: Stage) -> Address:
        """Return the address of a step of the protocol."""
        return Address(self.run, self.round, stage_name(self.purpose, attempt, stage))

    def last_attempt(self) -> int:
        """Return the last attempt that came further than its clients' own words, from 0."""
        found = (attempt_of(name, self.purpose) for name in self.mailbox.stages(self.run, self.round))
        return max((attempt for attempt in found if attempt is not None), default=0)

    def verify(self, party: str, text: bytes, signature: bytes) -> bool:
        """Return whether a signature is a client's, and the client one that may take part."""
        try:
            key = self.keys[party]
        except Refusal:  # a client that nobody knows
            return False
        return (self.roster is None or key.text in self.roster.members.values()) and self.signed(key, signature, text)


class SecureRound:
    """The secure sum of one stage, attempt after attempt until its members have shared; then that one to its end.

    ``shortest`` are the seconds that every step to its end has at least.
    """

    def __init__(self, office: Office, terms: Callable[[int], Terms], minimum: int, shortest: float = 0.0) -> None:
        self._office, self._terms, self.minimum, self._shortest = office, terms, minimum, shortest
        self._until: float | None = None
        self.attempt = office.last_attempt()
        self._begin()

    def _begin(self) -> None:
        self._server = Server(terms=self._terms(self.attempt), minimum=self.minimum)
        self._read = 0
        self._pieces: dict[tuple[Stage, str], list[bytes]] = {}  # of messages that have come in part
        self._catch_up()

    @property
    def terms(self) -> Terms:
        """The terms of this attempt; the vector's layout is the same in all."""
        return self._server.terms

    @property
    def told(self) -> dict[str, Any]:
        """What clients are told of it beside their work."""
        return {"attempt": self.attempt, "roster": self.terms.roster.hex()}

    @property
    def least(self) -> int | None:
        """How many vectors are needed; None until it is known."""
        return None if self._server.cohort is None else max(self.minimum, quorum(len(self._server.cohort)))

    def turn(self, asked: Iterable[str], left: float | None, now: float) -> bool:
        """Take in what has come and go on if it is time; return whether everybody is to be asked anew.

        ``asked`` are the clients that are expected, ``left`` the seconds of the stage that are left, None while it rests.
        """
        self._catch_up()
        if self._server.stage not in (Stage.KEYS, Stage.SHARES):
            return False
        if self._until is None and left is not None:
            self._until = now + _SHARE * left
        missing = self._missing(set(asked))
        late = self._until is not None and now >= self._until
        if missing and not late:
            return False
        if self._server.stage is Stage.KEYS and len(self._server.keys) < self.minimum:
            return False  # the stage's own deadline asks for more, and says what it waits for
        self._until = None
        try:
            self._close()
        except ProtocolError as error:
            _LOG.info("attempt %d at round %d: %s", self.attempt, self._office.round, error)
            self.attempt += 1
            self._begin()
            return True
        return False

    @property
    def sharers(self) -> frozenset[str] | None:
        """Who may mask, each once: there is no other attempt at this sum. None until they have each other's shares."""
        if self._server.cohort is None or self._server.stage in (Stage.KEYS, Stage.SHARES):
            return None
        return frozenset(self._server.cohort.names[i] for i in self._server.shares)

    def opened(self, survivors: Iterable[str], wait: Callable[[str, Sequence[str]], bool]) -> Server | None:
        """Return the protocol's end, at which every mask of the survivors' sum is known; None if it is given up.

        ``wait`` is told the step and who has not spoken in it, nobody if enough have and more are waited for a moment only, and
        returns when something may have come: False if it is time to give up.
        """
        for client in survivors:
            if self._server.stage is Stage.VECTORS:
                self._server = arrived(self._server, client)
        while not self._server.enough:
            self._catch_up()
            if self._may_close():
                self._close()
            elif not self._server.enough and not wait(self._server.stage.value, self._lacking()):
                return None
        return self._server

    def shut(self) -> None:
        """Take no more messages of this attempt: its sum is void, and not to be opened by those that come late."""
        for stage in Stage:
            self._office.mailbox.shut(self._office.at(self.attempt, stage))

    def _may_close(self) -> bool:
        """Return whether the step can be closed; a wrong code looks like a right one here, so more than enough are waited for."""
        if self._server.stage is Stage.VECTORS:
            return self._recoverable()
        if not self._agreed:
            return False
        if self._until is None:
            self._until = time.monotonic() + _SHARE * self._shortest
        return not self._server.waited_for() or time.monotonic() >= self._until

    def _recoverable(self) -> bool:
        """Return whether enough neighbours of each who shared are left; in a sparse graph that is not only their number."""
        try:
            close(self._server)
        except ProtocolError:
            return False
        return True

    @property
    def _agreed(self) -> bool:
        """Whether enough have agreed to the survivors, if their codes are right: one more that does not makes nothing void."""
        return self._server.stage is Stage.AGREEMENT and len(self._server.codes) >= quorum(len(self._server.known))

    def _lacking(self) -> list[str]:
        return [] if self._agreed else sorted(self._server.waited_for())

    def _missing(self, asked: set[str]) -> set[str]:
        if self._server.stage is Stage.KEYS:
            return asked - self._server.keys.keys()
        return set(self._server.waited_for()) & asked

    def _close(self) -> None:
        at = self._office.at(self.attempt, self._server.stage)
        after, letters = close(self._server)
        if self._office.mailbox.publish(at, letters, self._read):  # else something has come meanwhile
            self._server, self._read = after, 0

    def _catch_up(self) -> None:
        """Take in the letters of the step that is open; one's own among them say that it was closed there."""
        while True:
            found = self._office.mailbox.all(self._office.at(self.attempt, self._server.stage), self._read)
            for letter in found:
                self._read = letter.number
                if letter.sender == SERVER:
                    self._close_again(letter.body)
                    break
                self._take(letter.sender, letter.body)
            else:
                return

    def _take(self, sender: str, body: bytes) -> None:
        try:
            letters = self._pieces.setdefault((self._server.stage, sender), []) if kind_of(body) is Kind.PIECE else []
            letters.append(body)
            if (whole := joined(letters)) is not None:
                self._server = take(self._server, sender, whole, self._office.verify)
        except (FormatError, ProtocolError) as error:  # theirs to mend; the rest go on without it
            _LOG.warning("round %d: a message of %s: %s", self._office.round, sender, error)

    def _close_again(self, body: bytes) -> None:
        """Come to the next step as an earlier process did: what it has sent is in the mailbox."""
        if self._server.stage is Stage.VECTORS:
            self._server = replace(self._server, active=Survivors.read(body, self._server.known).active)
        self._server, _ = close(self._server)
        self._read = 0
