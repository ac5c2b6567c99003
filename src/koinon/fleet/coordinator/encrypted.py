"""The coordinator's half of an encrypted sum: it adds ciphertexts, asks the key holders, and never decrypts.

All it keeps of its own is how often a stage was begun anew, as an empty message in the mailbox, and the secret of its blinds. A
coordinator that starts again reads the same updates from the spool, makes the same request of them, and so has the same answer.
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
from koinon.fleet.coordinator.key_holder import Silent
from koinon.fleet.coordinator.key_holders import KeyHolders, found
from koinon.fleet.coordinator.mailbox import EVERYBODY, SERVER, Address
from koinon.fleet.coordinator.payload import Received
from koinon.fleet.coordinator.secure_sum import Office
from koinon.fleet.wire.encrypted_terms import needed, round_of
from koinon.fleet.wire.refusal import Refusal
from koinon.privacy.encrypted_sum.binary import Reader
from koinon.privacy.encrypted_sum.ciphertexts import UPDATE, Blinded, EncryptedSum
from koinon.privacy.encrypted_sum.keys import PublicKey
from koinon.privacy.encrypted_sum.pads import Round, SealedPad
from koinon.privacy.secure_sum.layout import Total
from koinon.store.blobs import Blobs

_LOG = logging.getLogger(__name__)


def encrypted_round(
    office: Office, algorithm: Algorithm, job: Job, cohort: int, wait: Callable[[str], None]
) -> EncryptedRound | None:
    """Return the encrypted sum of a stage, once its key holders are there, where the channel has one."""
    step = encrypted_of(algorithm)
    if step is None:
        return None
    roster = None if office.roster is None else office.roster.digest().hex()
    while (holders := found(office.holders, step.keys, roster, wait)) is None:
        pass
    own = holders

    def rounds(attempt: int) -> Round:
        at = (algorithm, office.run, office.round, office.purpose, attempt)
        return round_of(*at, value=job.broadcast, cohort=cohort, keys=own.keys)

    return EncryptedRound(office, own, rounds, needed(step.least, own.keys))


def show(keys: Sequence[PublicKey], blobs: Blobs) -> frozenset[str]:
    """Have public keys where clients fetch models, and return the names by which they do: their fingerprints."""
    for key in keys:
        path = blobs.path(key.fingerprint.hex())
        if not path.exists():
            partial = path.with_suffix(".part")
            partial.write_bytes(key.to_bytes())
            partial.replace(path)
    return frozenset(key.fingerprint.hex() for key in keys)


class EncryptedRound:
    """The encrypted sum of one stage, attempt after attempt until one is decrypted."""

    def __init__(self, office: Office, holders: KeyHolders, rounds: Callable[[int], Round], minimum: int) -> None:
        self._office, self._holders, self._rounds = office, holders, rounds
        self.minimum, self.keys = minimum, holders.keys
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

    @property
    def sharers(self) -> None:
        """None: nobody's update depends on who else sends one, so more may always come."""

    def turn(self, asked: Iterable[str], left: float | None, now: float) -> bool:
        """Return False: every client speaks once."""
        return False

    def examine(self, client: str, received: Received) -> None:
        """Raise FormatError for an update that would spoil the sum: of another round, or not signed for this one."""
        update, pads = received.encrypted()
        if bytes(update[: len(UPDATE) + len(self.round.digest)]) != UPDATE + self.round.digest:
            raise FormatError("The ciphertexts are of another round, for another key, or with other parameters.")
        for pad in self._pads(pads):
            text = self.round.text(b"signed", pad.client, pad.sealed)
            if pad.client != self._office.keys[client].text or not self._office.verify(client, text, pad.signature):
                raise FormatError("The pad is not signed by this client for this round.")

    def decrypted(
        self, received: Sequence[Received], gone: Callable[[], bool], wait: Callable[[str], None]
    ) -> Total | None:
        """Return the sum that the key holders have decrypted; None where the stage is to begin anew.

        It waits, telling ``wait`` for what, as long as a key holder is away or refuses; unless somebody in the sum is
        ``gone``, sent away by the operator: a key holder may refuse that one's pad for ever.
        """
        parameters = self.round.parameters
        if not received:
            return Total(np.zeros(parameters.values, np.int64), 0, np.zeros(parameters.figures))
        blinded, pads = self._added(received)
        while True:
            try:
                totals = self._holders.total(self.round, pads, blinded)
                return Total(totals.values, totals.weight, totals.figures)
            except Silent as error:
                wait(str(error))
            except Refusal as error:
                if error.code == "spoiled" or (error.code == "refused" and gone()):
                    _LOG.warning("round %d is asked for anew: %s", self._office.round, error)
                    return None
                wait(str(error))
            except FormatError as error:
                wait(f"an answer of a key holder that is one: {error}")

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

    def _added(self, received: Sequence[Received]) -> tuple[Blinded, list[tuple[SealedPad, ...]]]:
        """Return the sum of the ciphertexts as key holders may see it, and each client's pads."""
        total, pads = EncryptedSum(self.round), []
        for part in received:
            update, sealed = part.encrypted()
            total.add(update)
            pads.append(self._pads(sealed))
        return total.blinded(self._office.blinds), pads

    def _pads(self, sealed: memoryview) -> tuple[SealedPad, ...]:
        """Return one pad for each key holder. Raises FormatError for anything else."""
        reader = Reader(sealed, b"", "A sealed pad")
        pads = tuple(SealedPad.read(reader) for _ in self.keys)
        reader.end()
        return pads
