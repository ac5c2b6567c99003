"""A participant's half of an encrypted sum: it pads for the app's key holders, encrypts, signs, and has spoken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from koinon.channel.encrypted import encrypted_of
from koinon.core.algorithm import Algorithm
from koinon.core.types import Payload
from koinon.errors import FormatError, ProtocolError
from koinon.fleet.participant.connection import Connection
from koinon.fleet.participant.secure_sum import Place
from koinon.fleet.wire.encrypted_terms import CIPHERTEXTS, PAD, round_of
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.encrypted_sum.client import encrypted
from koinon.privacy.encrypted_sum.keys import PublicKey
from koinon.round.masked import flat, flat_figures
from koinon.tree import Tree

_LARGEST_KEY = 1 << 18


class Seal:
    """Encrypts for the key holders; their public keys come by way of the coordinator, and their fingerprints are the app's.

    ``cohort`` is the fewest clients with which this participant is added up: a coordinator's word for how many there are is
    no help, so the keys have to say it.
    """

    def __init__(self, connection: Connection, key: OwnKey, cohort: int) -> None:
        self._connection, self._own, self._cohort = connection, key, cohort
        self._holders: tuple[PublicKey, ...] = ()

    def opened(self, algorithm: Algorithm, place: Place, value: Tree, cohort: int) -> Callable[[Payload], Payload]:
        """Return what encrypts an update for an attempt at a sum. Raises FormatError, ProtocolError, before it is computed."""
        step = encrypted_of(algorithm)
        assert step is not None, "the caller has seen it"
        if not self._holders:
            self._holders = tuple(map(self._fetched, step.keys))
        holders, room = self._holders, step.figures
        at = (algorithm, place.run, place.round, place.purpose, place.attempt)
        round = round_of(*at, value=value, cohort=cohort, keys=holders)
        if (floor := min(key.floor for key in holders)) < self._cohort:
            raise ProtocolError(
                f"A key holder decrypts sums of {floor} clients, and this participant's floor is {self._cohort}: no round would "
                f"keep to it. Ask for a key of koinon keyholder --floor {self._cohort}, or lower --minimum-cohort."
            )

        def seal(sent: Payload) -> Payload:
            numbers = flat(sent.value), int(sent.weight), flat_figures(sent.metrics, room).tolist()
            out = encrypted(round, holders, self._own.public.text, numbers, self._own.sign)
            parts = {
                CIPHERTEXTS: np.frombuffer(out.update, np.uint8),
                PAD: np.frombuffer(b"".join(pad.to_bytes() for pad in out.pads), np.uint8),
            }
            shapes = {name: np.zeros(np.shape(sums)) for name, sums in sent.metrics.items()}
            return Payload(parts, np.float32(1), shapes)

        return seal

    def _fetched(self, fingerprint: str) -> PublicKey:
        size = self._connection.size(fingerprint)
        if size > _LARGEST_KEY:
            raise FormatError(f"A key holder's public key has at most {_LARGEST_KEY:,} bytes; {size:,} were announced.")
        return PublicKey.from_bytes(bytes(self._connection.download(fingerprint, size)))
