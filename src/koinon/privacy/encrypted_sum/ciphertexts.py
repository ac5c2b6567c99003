"""Ciphertexts on the wire and their running sum: numpy alone, so a coordinator needs neither SEAL nor a key.

A ciphertext is two polynomials modulo ``MODULUS``. Of each the low ``dropped_bits`` bits are not sent, a modulus switch whose
noise is in the margin; the others follow as planes of 32, 16, 8 and 4 bits, lowest first. Any bytes of the right length are a
ciphertext, so a stranger's can be wrong but never malformed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np

from koinon.errors import FleetError, FormatError
from koinon.privacy.encrypted_sum.binary import Reader
from koinon.privacy.encrypted_sum.blinds import Blind, turns
from koinon.privacy.encrypted_sum.pads import Round
from koinon.privacy.encrypted_sum.parameters import DEGREE, INTEGER_BITS, MODULUS, MODULUS_BITS, Parameters
from koinon.privacy.encrypted_sum.shares import Share
from koinon.tree import Array

UPDATE, SUM = b"koinon encrypted update 1\n", b"koinon encrypted sum 1\n"
SUM_BYTES = DEGREE * 2 * MODULUS_BITS // 8
"""Bytes of one summed ciphertext: all its bits are sent, for the one time that it travels."""
_DIGEST_BYTES = 32
_PLANES = ((32, "<u4"), (16, "<u2"), (8, "u1"))


def packed(words: Array, dropped: int) -> bytes:
    """Return the planes of a polynomial, uint64 ``[DEGREE]`` below MODULUS, without its low ``dropped`` bits."""
    sent = (words >> np.uint64(dropped)).astype("<u8", copy=False)
    planes, bit, bits = [], 0, MODULUS_BITS - dropped
    for width, kind in _PLANES:
        if bits - bit >= width:
            planes.append(sent.view(kind)[bit // width :: INTEGER_BITS // width].tobytes())
            bit += width
    if bit < bits:
        small = (sent >> np.uint64(bit)).astype(np.uint8)
        planes.append((small[0::2] | (small[1::2] << 4)).tobytes())
    return b"".join(planes)


def unpacked(planes: memoryview, dropped: int) -> Array:
    """Return the polynomial of :func:`packed`; the bits that were not sent are in the middle of what they can be."""
    out, shift = np.full(DEGREE, (1 << dropped) >> 1, np.uint64), dropped
    for width, kind in _PLANES:
        if MODULUS_BITS - shift >= width:
            size = DEGREE * width // 8
            out += np.frombuffer(planes[:size], kind).astype(np.uint64) << np.uint64(shift)
            planes, shift = planes[size:], shift + width
    if shift < MODULUS_BITS:
        small = np.frombuffer(planes, np.uint8)
        both = np.stack([small & 15, small >> 4], axis=1).reshape(-1)
        out += both.astype(np.uint64) << np.uint64(shift)
    return reduced(out)


def reduced(words: Array) -> Array:
    """Return numbers below twice the modulus, reduced."""
    return np.minimum(words, words - np.uint64(MODULUS))  # what would be negative wraps to more


def update_bytes(parameters: Parameters) -> int:
    """Return the bytes of what a client sends into the sum."""
    return len(UPDATE) + _DIGEST_BYTES + parameters.ciphertext_bytes * parameters.ciphertexts


@dataclass(frozen=True)
class Blinded:
    """What key holders are shown of a sum, as bytes, and the coordinator's own ``share``, which makes a sum of their answers."""

    total: bytes
    share: Share


class EncryptedSum:
    """The running sum of clients' ciphertexts: uint64 ``[ciphertexts, 2, DEGREE]``, 16 bytes a coefficient."""

    def __init__(self, round: Round) -> None:
        self._round = round
        self.clients = 0
        self._total = np.zeros((round.parameters.ciphertexts, 2, DEGREE), np.uint64)

    def add(self, update: bytes | bytearray | memoryview) -> None:
        """Add one client's update. Raises FormatError, before anything is added, for one that is not of this round."""
        parameters = self._round.parameters
        reader = Reader(update, UPDATE, "An encrypted update")
        _same_round(reader, self._round)
        size, count = parameters.ciphertext_bytes, parameters.ciphertexts
        body = reader.take(size * count)
        reader.end()
        if self.clients >= parameters.cohort:
            raise FleetError(f"{parameters.cohort} clients are in the sum, and no more can be summed exactly.")
        first, second = parameters.dropped_bits
        cut = DEGREE * (MODULUS_BITS - first) // 8
        for index, total in enumerate(self._total):
            own = body[index * size : (index + 1) * size]
            for into, planes, dropped in zip(total, (own[:cut], own[cut:]), (first, second), strict=True):
                into[:] = reduced(into + unpacked(planes, dropped))
        self.clients += 1

    def merge(self, other: Self) -> None:
        """Add the sum of other clients of the same round."""
        if other._round != self._round or self.clients + other.clients > self._round.parameters.cohort:
            raise FleetError("Two encrypted sums of different rounds, or of too many clients, cannot be added.")
        self._total[:] = reduced(self._total + other._total)
        self.clients += other.clients

    def to_bytes(self) -> bytes:
        """Return the sum as it is. A key holder that is shown it sees what it is the sum of: see :meth:`blinded`."""
        return b"".join((SUM, self._round.digest, *(packed(words, 0) for total in self._total for words in total)))

    def blinded(self, secret: bytes) -> Blinded:
        """Return the sum under a blind, the same of the same sum and ``secret``, 32 bytes that only the coordinator has."""
        blinds = islice(Blind(secret, self.to_bytes()).polynomials(), len(self._total))
        parts, share = [SUM, self._round.digest], np.empty((len(self._total), DEGREE), np.uint64)
        for (first, second), blind, own in zip(self._total, blinds, share, strict=True):
            parts += packed(reduced(first + blind), 0), packed(second, 0)
            own[:] = -turns(blind)
        return Blinded(b"".join(parts), Share(share))


def summed(data: bytes | memoryview, round: Round) -> memoryview:
    """Return the ciphertexts in a sum, SUM_BYTES each. Raises FormatError for one that is not of this round."""
    reader = Reader(data, SUM, "An encrypted sum")
    _same_round(reader, round)
    body = reader.take(SUM_BYTES * round.parameters.ciphertexts)
    reader.end()
    return body


def polynomials(ciphertext: memoryview) -> Array:
    """Return a summed ciphertext as uint64 ``[2, DEGREE]`` below MODULUS."""
    half = len(ciphertext) // 2
    return np.stack([unpacked(ciphertext[:half], 0), unpacked(ciphertext[half:], 0)])


def _same_round(reader: Reader, round: Round) -> None:
    if bytes(reader.take(len(round.digest))) != round.digest:
        raise FormatError(
            f"Ciphertexts are not of round {round.number} of {round.run!r}: of another round, for another key holder, or with "
            "other parameters. All three must be the same for everybody."
        )
