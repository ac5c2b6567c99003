"""A participant's half of a secure sum: keys and shares before its vector leaves, its word on the survivors after.

Its record is on its own disk before any message leaves, so that a crash between two of them gives nothing away twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from koinon.core.types import Purpose
from koinon.errors import FormatError, ProtocolError
from koinon.fleet.participant.connection import Connection
from koinon.fleet.participant.keep import Keep
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.secure_terms import stage_name
from koinon.fleet.wire.signatures import Kind, PublicKey, Signed, decoded, digest, encoded, remembering, signed_text
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Advertised, Client, Masked, Ready, State
from koinon.privacy.secure_sum.keys import StandingKey
from koinon.privacy.secure_sum.messages import Verify
from koinon.privacy.secure_sum.primitives import KEY_BYTES
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.roster import Roster
from koinon.privacy.secure_sum.saved import from_bytes, to_bytes
from koinon.privacy.secure_sum.server import Stage
from koinon.privacy.secure_sum.terms import NO_APP, Floors, Past, Terms
from koinon.privacy.secure_sum.wire import pieces

_WAIT_SECONDS = 10
_SERVER = "server"


@dataclass(frozen=True)
class Place:
    """Which sum: an attempt at a stage of a round of a run."""

    run: str
    round: int
    purpose: Purpose
    attempt: int


class SecureSums:
    """The secure sums of one participant in one run."""

    def __init__(
        self, connection: Connection, keep: Keep, client: str, cohort: int, roster: Roster | None, app: bytes = NO_APP
    ) -> None:
        self._connection, self._keep, self._client, self._roster = connection, keep, client, roster
        self._app = app
        trusted = None if roster is None else roster.digest()
        self._floors = Floors(minimum_cohort=max(cohort, Floors.minimum_cohort), roster=trusted)
        self._keys: dict[str, PublicKey] = {}
        self._signed: Signed = remembering()
        self._standing: dict[Purpose, StandingKey] = {}

    def prepared(self, place: Place, terms: Terms, still: Callable[[], bool]) -> Ready | Masked | None:
        """Return this participant ready to mask, or masked already; None if ``still`` says that nobody waits any more.

        ``terms`` are completed by the app that this participant has joined with. Raises ProtocolError, FormatError for what it
        refuses.
        """
        state, terms = self._known(place), replace(terms, app=self._app)
        if state is None:
            past = self._client_record(place)
            state, said = half.begin(past, terms, os.urandom(KEY_BYTES), self._keep.key.sign)
            self._remembered(place, state.client)
            self.give_up(place.run)
            self.write(place, state)
            self._post(place, Stage.KEYS, said)
        elif not isinstance(state, Masked) and state.terms != terms:
            raise ProtocolError(
                f"Attempt {place.attempt} at round {place.round} was begun here for another model, roster or cohort. It is not begun "
                "twice: leave the round."
            )
        elif isinstance(state, Advertised):  # a crash may have kept back what it says here, and below
            self._post(place, Stage.KEYS, half.advertised(state))
        for stage in (Stage.KEYS, Stage.SHARES):
            if isinstance(state, Ready | Masked):
                break
            letter = self._letter(place, stage, still)
            if letter is None:
                return None
            state = self._answered(place, state, letter, Stage.SHARES)
        assert isinstance(state, Ready | Masked), "these two messages lead there"
        return state

    def masked(self, state: Ready, vector: Vector) -> Masked:
        """Mask a vector in place; return what to :meth:`write` once the vector is on the disk."""
        return half.mask(state, vector)

    def write(self, place: Place, record: Client | State) -> None:
        """Put this participant's record on the disk."""
        self._keep.keep_secure_sum(place.run, place.purpose.value, to_bytes(record))

    def open(self, place: Place, still: Callable[[], bool]) -> None:
        """Agree to the survivors and open the shares that their sum needs; return when the round is over without it, too.

        It returns as well once ``still`` says that there is something else to do, and where a coordinator that was started anew has not
        come back to the round: it may ask for the shares later. Raises ProtocolError, FormatError for what it refuses.
        """
        state = self._known(place)
        if not isinstance(state, Masked):
            return
        try:
            for hears, says in ((Stage.VECTORS, Stage.AGREEMENT), (Stage.AGREEMENT, Stage.UNMASKING)):
                letter = self._letter(place, hears, still)
                if letter is None:
                    return
                state = self._answered(place, state, letter, says)
        except Refusal as refusal:
            if refusal.code == "not_open":
                return
            if refusal.code != "over":
                raise
        except (ProtocolError, FormatError):
            self.write(place, state.client)
            raise
        self.write(place, state.client)

    def give_up(self, run: str) -> None:
        """Drop what could still open a sum of before: the coordinator has gone on, with it or without it."""
        while (before := self.pending(run)) is not None:
            record = self._known(before)
            assert isinstance(record, Masked), "what is pending is masked"
            self.write(before, record.client)

    def end(self, run: str) -> None:
        """Drop what could still open a sum of a run that is over, and the standing keys under which its shares were sealed."""
        for purpose in (Purpose.TRAIN, Purpose.EVALUATE):
            if (kept := self._keep.secure_sum(run, purpose.value)) is not None:
                client = _client(from_bytes(kept))
                place = Place(run, client.past.round, purpose, client.past.attempt)
                self.write(place, replace(client, standing=None))
        self._standing.clear()

    def pending(self, run: str) -> Place | None:
        """Return the sum whose vector has left and which may not have been opened yet."""
        for purpose in (Purpose.TRAIN, Purpose.EVALUATE):
            kept = self._keep.secure_sum(run, purpose.value)
            state = None if kept is None else from_bytes(kept)
            if isinstance(state, Masked):
                return Place(run, state.client.past.round, purpose, state.client.past.attempt)
        return None

    def _answered(self, place: Place, state: State, letter: bytes, says: Stage) -> State:
        after, said = half.answer(state, letter, self._verify(place.run))
        self.write(place, after)
        if said is not None:
            self._post(place, says, said)
        return after

    def _known(self, place: Place) -> State | None:
        """Return how far this participant has come in a sum, None if it has not begun."""
        kept = self._keep.secure_sum(place.run, place.purpose.value)
        state = None if kept is None else from_bytes(kept)
        if state is None or isinstance(state, Client):
            return None
        past = state.client.past
        if (past.round, past.attempt) != (place.round, place.attempt):
            return None
        return replace(state, client=self._remembered(place, state.client))

    def _client_record(self, place: Place) -> Client:
        kept = self._keep.secure_sum(place.run, place.purpose.value)
        if kept is None:
            return Client(party=self._client, floors=self._floors, past=Past(run=f"{place.run} {place.purpose.value}"))
        client = self._remembered(place, _client(from_bytes(kept)))
        standing = client.standing if client.party == self._client else None  # it is signed for a name
        return replace(client, party=self._client, floors=self._floors, standing=standing)

    def _remembered(self, place: Place, client: Client) -> Client:
        """Return a client with its standing key as it was last used here: with all that it has agreed on with others."""
        known = self._standing.get(place.purpose)
        if client.standing is None or client.standing == known:
            return replace(client, standing=known)
        self._standing[place.purpose] = client.standing
        return client

    def _post(self, place: Place, stage: Stage, body: bytes) -> None:
        name = stage_name(place.purpose, place.attempt, stage)
        for piece in pieces(body):
            text = signed_text("message", place.run, place.round, name, self._client, _SERVER, digest(piece))
            letter = {"to": _SERVER, "body": encoded(piece), "signature": encoded(self._keep.key.sign(text))}
            self._connection.call("POST", self._box(place, stage), letter)

    def _letter(self, place: Place, stage: Stage, still: Callable[[], bool]) -> bytes | None:
        """Return the coordinator's message at the end of a step, or None once ``still`` says no."""
        since = 0
        while True:
            found = self._connection.call("GET", f"{self._box(place, stage)}?since={since}&wait={_WAIT_SECONDS}")
            for letter in found["messages"]:
                if letter["from"] == _SERVER:
                    return decoded(letter["body"])
            since = found["next"]
            if not found["messages"] and not still():
                return None

    def _box(self, place: Place, stage: Stage) -> str:
        name = stage_name(place.purpose, place.attempt, stage)
        return f"/v1/runs/{place.run}/rounds/{place.round}/stages/{name}/messages"

    def _verify(self, run: str) -> Verify:
        """Return what knows the members of one message by their keys: one key is one member, whatever the coordinator calls it."""
        known = {self._keep.key.public: self._client}

        def verify(party: str, text: bytes, signature: bytes) -> bool:
            if party not in self._keys:
                self._fetch_keys(run)
            key = self._keys.get(party)
            return key is not None and known.setdefault(key, party) == party and self._signed(key, signature, text)

        return verify

    def _fetch_keys(self, run: str) -> None:
        found: list[Mapping[str, Any]] = self._connection.call("GET", f"/v1/runs/{run}/clients")["clients"]
        keys = {own["client"]: PublicKey(Kind(own["kind"]), decoded(own["key"])) for own in found}
        members = None if self._roster is None else set(self._roster.members.values())
        self._keys = {client: key for client, key in keys.items() if members is None or key.text in members}


def _client(record: Client | State) -> Client:
    return record if isinstance(record, Client) else record.client
