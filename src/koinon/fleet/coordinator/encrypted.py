"""The coordinator's half of an encrypted sum: it adds ciphertexts, asks the key holder, and never decrypts.

All it keeps of its own is how often a stage was begun anew, as an empty message in the mailbox. A coordinator that starts again
reads the same updates from the spool, makes the same request of them, and so has the same answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from koinon.channel.encrypted import encrypted_of
from koinon.core.algorithm import Algorithm
from koinon.core.types import Job
from koinon.errors import FormatError
from koinon.fleet.coordinator.key_holder import KeyHolder, Silent
from koinon.fleet.coordinator.mailbox import EVERYBODY, SERVER, Address
from koinon.fleet.coordinator.payload import Received
from koinon.fleet.coordinator.secure_sum import Office
from koinon.fleet.wire.encrypted_terms import needed, round_of
from koinon.fleet.wire.refusal import Refusal
from koinon.privacy.encrypted_sum.binary import Reader
from koinon.privacy.encrypted_sum.ciphertexts import UPDATE, EncryptedSum
from koinon.privacy.encrypted_sum.holder import Request
from koinon.privacy.encrypted_sum.keys import PublicKey
from koinon.privacy.encrypted_sum.packing import Totals
from koinon.privacy.encrypted_sum.pads import Round, SealedPad
from koinon.privacy.secure_sum.layout import Total
from koinon.store.blobs import Blobs

_LOG = logging.getLogger(__name__)
_HEAD_BYTES = 1 << 10


def encrypted_round(
    office: Office, algorithm: Algorithm, job: Job, cohort: int, wait: Callable[[str], None]
) -> EncryptedRound | None:
    """Return the encrypted sum of a stage, once its key holder is there, where the channel has one."""
    step = encrypted_of(algorithm)
    if step is None:
        return None
    assert office.holder is not None, "an app that needs a key holder is not served without"
    roster = None if office.roster is None else office.roster.digest().hex()
    while (key := _key(office.holder, step.key, roster, wait)) is None:
        pass

    def rounds(attempt: int) -> Round:
        at = (algorithm, office.run, office.round, office.purpose, attempt)
        return round_of(*at, value=job.broadcast, cohort=cohort, key=key)

    return EncryptedRound(office, office.holder, rounds, needed(step.least, key), key)


def _key(holder: KeyHolder, pinned: str, roster: str | None, wait: Callable[[str], None]) -> PublicKey | None:
    """Return the key if the holder is there and the app's; else wait a little and return None."""
    try:
        terms = holder.terms()
    except Silent as error:
        wait(str(error))
    except (FormatError, Refusal) as error:
        wait(f"a key holder with another answer: {error}")
    else:
        if (found := terms.key.fingerprint.hex()) == pinned and roster in (None, terms.roster):
            return terms.key
        holder.forget()
        if found != pinned:
            wait(f"the key holder of the app, whose key is {pinned}: the one at --keyholder has {found}")
        else:
            wait(
                f"a key holder that goes by the coordinator's roster {str(roster)[:16]}: it has {(terms.roster or 'none')[:16]}. Start "
                "koinon keyholder with --roster and --roster-key"
            )
    return None


def show(key: PublicKey, blobs: Blobs) -> str:
    """Have a public key where clients fetch models, and return the name by which they do: its fingerprint."""
    path = blobs.path(name := key.fingerprint.hex())
    if not path.exists():
        partial = path.with_suffix(".part")
        partial.write_bytes(key.to_bytes())
        partial.replace(path)
    return name


class EncryptedRound:
    """The encrypted sum of one stage, attempt after attempt until one is decrypted."""

    def __init__(
        self, office: Office, holder: KeyHolder, rounds: Callable[[int], Round], minimum: int, key: PublicKey
    ) -> None:
        self._office, self._holder, self._rounds = office, holder, rounds
        self.minimum, self.key = minimum, key
        self.attempt = 0
        while self._has_begun(self.attempt + 1):
            self.attempt += 1
        self.round = rounds(self.attempt)

    @property
    def told(self) -> dict[str, Any]:
        """What clients are told of it beside their work."""
        return {"attempt": self.attempt}

    @property
    def least(self) -> int:
        """How many updates are needed."""
        return self.minimum

    def turn(self, asked: Iterable[str], left: float | None, now: float) -> bool:
        """Return False: every client speaks once."""
        return False

    def examine(self, client: str, received: Received) -> None:
        """Raise FormatError for an update that would spoil the sum: of another round, or not signed for this one."""
        update, pad = received.encrypted()
        if bytes(update[: len(UPDATE) + len(self.round.digest)]) != UPDATE + self.round.digest:
            raise FormatError("The ciphertexts are of another round, for another key, or with other parameters.")
        sealed = _sealed(pad)
        text = self.round.text(b"signed", sealed.client, sealed.sealed)
        if sealed.client != self._office.keys[client].text or not self._office.verify(client, text, sealed.signature):
            raise FormatError("The pad is not signed by this client for this round.")

    def decrypted(
        self, received: Sequence[Received], gone: Callable[[], bool], wait: Callable[[str], None]
    ) -> Total | None:
        """Return the sum that the key holder has decrypted; None where the stage is to begin anew.

        It waits, telling ``wait`` for what, as long as the key holder is away or refuses; unless somebody in the sum is
        ``gone``, sent away by the operator: the key holder may refuse that one's pad for ever.
        """
        parameters = self.round.parameters
        if not received:
            return Total(np.zeros(parameters.values, np.int64), 0, np.zeros(parameters.figures))
        request, most = self._request(received).to_bytes(), _HEAD_BYTES + 8 * (parameters.values + parameters.figures)
        while True:
            try:
                totals = Totals.from_bytes(self._holder.sum(request, most), parameters)
                if totals.clients != len(received):
                    raise FormatError(f"It is for {totals.clients} clients, and {len(received)} were asked for.")
                return Total(totals.values, totals.weight, totals.figures)
            except Silent as error:
                wait(str(error))
            except Refusal as error:
                if error.code == "spoiled" or gone():
                    _LOG.warning("round %d is asked for anew: %s", self._office.round, error)
                    return None
                wait(f"the key holder, which refuses: {error}")
            except FormatError as error:
                wait(f"an answer of the key holder that is one: {error}")

    def begin_anew(self) -> None:
        """Go on to the next attempt, which a coordinator that starts again will be in, too."""
        self.attempt += 1
        at, mailbox = self._at(self.attempt), self._office.mailbox
        while not mailbox.publish(at, {EVERYBODY: b""}, max((letter.number for letter in mailbox.all(at)), default=0)):
            pass  # a client has written there meanwhile, for whatever reason
        self.round = self._rounds(self.attempt)

    def _has_begun(self, attempt: int) -> bool:
        return any(letter.sender == SERVER for letter in self._office.mailbox.all(self._at(attempt)))

    def _at(self, attempt: int) -> Address:
        office = self._office
        return Address(office.run, office.round, f"{office.purpose.value}-{attempt}-encrypted")

    def _request(self, received: Sequence[Received]) -> Request:
        total, pads = EncryptedSum(self.round), []
        for part in received:
            update, pad = part.encrypted()
            total.add(update)
            pads.append(_sealed(pad))
        return Request(self.round, tuple(pads), total.to_bytes())


def _sealed(pad: memoryview) -> SealedPad:
    reader = Reader(pad, b"", "A sealed pad")
    found = SealedPad.read(reader)
    reader.end()
    return found
