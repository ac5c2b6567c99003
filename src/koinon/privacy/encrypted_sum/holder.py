"""The key holder's half: who it is asked about, what it refuses, what it writes down before it decrypts.

It finds how many clients a sum counts. The rest of what it decrypts is the coordinator's blind, and says nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

import numpy as np

from koinon.errors import ConfigurationError, FleetError, FormatError, StoreError
from koinon.privacy.encrypted_sum import binary, ciphertexts, lattice
from koinon.privacy.encrypted_sum.keys import SecretKey
from koinon.privacy.encrypted_sum.pads import LONGEST_NAME, MOST_HOLDERS, Pad, Round, SealedPad, Verify
from koinon.privacy.encrypted_sum.parameters import DEGREE, INTEGER_BITS, TURN_BITS, Parameters
from koinon.privacy.encrypted_sum.shares import Share, check_count
from koinon.privacy.random_bits import KEY_BYTES
from koinon.tree import Array

_REQUEST = b"koinon decryption request 1\n"
_LONGEST_PARAMETERS = 1 << 10
_MOST_BYTES = 1 << 30  # of a sum, also for a holder that is told its size and given none
_FORMAT = 1


@dataclass(frozen=True)
class Request:
    """What a coordinator asks: the sum of these clients, in this round.

    ``pads`` are those for the holder that is asked. ``total`` is the blinded sum of their ciphertexts,
    :meth:`EncryptedSum.blinded`; of several holders the first one alone gets it, and the others nothing.
    """

    round: Round
    pads: tuple[SealedPad, ...]
    total: bytes | memoryview

    def to_bytes(self) -> bytes:
        """Return the message."""
        parts = (self.round.run.encode(), self.round.parameters.text())
        keys = (binary.number(len(self.round.keys)), *self.round.keys)
        pads = (binary.number(len(self.pads)), *(pad.to_bytes() for pad in self.pads))
        head = (*map(binary.field, parts), binary.number(self.round.number), self.round.model)
        return b"".join((_REQUEST, *head, *keys, *pads, self.total))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the request of :meth:`to_bytes`. Raises FormatError for anything else."""
        reader = binary.Reader(data, _REQUEST, "A decryption request")
        run, parameters = reader.line(LONGEST_NAME), Parameters.from_text(reader.field(_LONGEST_PARAMETERS))
        number, model = reader.number((1 << 32) - 1), bytes(reader.take(KEY_BYTES))
        keys = tuple(bytes(reader.take(KEY_BYTES)) for _ in range(reader.number(MOST_HOLDERS)))
        try:
            round = Round(run=run, number=number, parameters=parameters, keys=keys, model=model)
        except ConfigurationError as error:
            raise FormatError(str(error)) from error
        pads = tuple(SealedPad.read(reader) for _ in range(reader.number(parameters.cohort)))
        return cls(round, pads, reader.rest())

    @property
    def digest(self) -> str:
        """SHA-256 over the message, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True)
class Answered:
    """The latest round of each run that was decrypted, and the request: what a key holder never forgets."""

    rounds: Mapping[str, tuple[int, str]] = field(default_factory=lambda: MappingProxyType({}))

    def with_request(self, request: Request) -> Self:
        """Return this with the request in it. Raises FleetError for a round that is over, or one asked about otherwise."""
        run, number, digest = request.round.run, request.round.number, request.digest
        latest, known = self.rounds.get(run, (-1, ""))
        if number < latest or (number == latest and digest != known):
            raise FleetError(
                f"Round {number} of {run!r} will not be decrypted: round {latest} was, and a round has one sum only, "
                "asked for in one way. Go on with the next round."
            )
        return type(self)(MappingProxyType({**self.rounds, run: (number, digest)}))

    def to_bytes(self) -> bytes:
        """Return JSON, for a file."""
        return json.dumps({"format": _FORMAT, "rounds": dict(self.rounds)}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what :meth:`to_bytes` wrote. Raises StoreError for anything else."""
        try:
            found = json.loads(data)
            if found["format"] != _FORMAT:
                raise ValueError(f"its format is {found['format']!r}")
            return cls(
                MappingProxyType({run: (int(number), str(own)) for run, (number, own) in found["rounds"].items()})
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"What a key holder has decrypted cannot be read ({error!r}). Without it, or by an older copy of it, the "
                "holder would decrypt a second sum of a round: restore one from after the last sum, or make a new key."
            ) from error


@dataclass(frozen=True, kw_only=True)
class KeyHolder:
    """Decrypts blinded sums for a coordinator it does not trust.

    ``verify`` knows the clients and their keys, from a list that the coordinator cannot change: clients that it made up
    would be taken for a crowd. The floor is that of the public key.
    """

    secret: SecretKey
    verify: Verify

    @property
    def floor(self) -> int:
        """The fewest clients of whom a sum is decrypted."""
        return self.secret.public.floor

    def share(self, request: Request, answered: Answered, keep: Callable[[Answered], None]) -> Share:
        """Return this holder's share of a sum, after ``keep`` has put the new state where a crash does not take it.

        The same request again has the same answer. Raises FleetError for a request that is refused: another key, too few
        clients or too many, one of them twice, a signature or a seal that does not hold, a round that is over. A single
        holder raises it too where the ciphertext is not the sum of these clients; that round is then over, and no number is
        returned. Of several none can see that, and they are asked to count first.
        """
        self._admit(request)
        first = request.round.keys[0] == self.secret.public.fingerprint  # the others' requests have no ciphertext
        body = ciphertexts.summed(request.total, request.round) if first else None
        pads = [pad.opened(request.round, self.secret) for pad in request.pads]
        keep(answered.with_request(request))
        share = Share(self._decrypted(request.round.parameters, body, pads))
        if len(request.round.keys) == 1:
            check_count(request.round, len(pads), [share.count])
        return share

    def _admit(self, request: Request) -> None:
        round, names = request.round, [pad.client for pad in request.pads]
        if (size := round.parameters.ciphertexts * ciphertexts.SUM_BYTES) > _MOST_BYTES:
            raise FormatError(f"A sum has at most {_MOST_BYTES:,} bytes, and this one {size:,}. Ask for a smaller one.")
        if self.secret.public.fingerprint not in round.keys:
            raise FleetError("The request is for other keys than this key holder's. Ask the key holders who have them.")
        if len(names) < self.floor:
            raise FleetError(f"{len(names)} clients are no crowd: this key decrypts sums of at least {self.floor}.")
        if len(names) > round.parameters.cohort or len(set(names)) < len(names):
            raise FleetError(
                f"The request names {len(names)} clients, {len(set(names))} of them different, for a cohort of "
                f"{round.parameters.cohort}. Name everybody in the sum once."
            )
        for pad in request.pads:
            if not pad.verified(round, self.verify):
                raise FleetError(
                    f"{pad.client!r} is not on the key holder's list, or has not signed this round with these parameters "
                    "for this key."
                )

    def _decrypted(self, parameters: Parameters, body: memoryview | None, pads: list[Pad]) -> Array:
        """Return a share's words: what the ciphertexts hold, less the pads."""
        words = np.zeros((parameters.ciphertexts, DEGREE), np.uint64)
        if body is not None:
            with lattice.opened(TURN_BITS) as seal:
                decrypt, _ = seal.decryptor(self.secret.lattice)
                for index, plaintext in enumerate(words):
                    own = body[index * ciphertexts.SUM_BYTES : (index + 1) * ciphertexts.SUM_BYTES]
                    plaintext[:] = decrypt(ciphertexts.polynomials(own)) << np.uint64(INTEGER_BITS - TURN_BITS)
        for pad in pads:
            for plaintext, own in zip(words, pad.plaintexts(), strict=False):  # a pad has no end
                plaintext -= own << np.uint64(INTEGER_BITS - parameters.plain_bits)
        return words
