"""The shares of a sum: the coordinator takes off its blind and each key holder its own pads, and only all of that is the sum.

Several holders are experimental. Additive sharing of the one-time pads, n of n: a client adds a pad for each holder, so
what lacks one holder's share is uniform, whoever works together otherwise. A share's first column says how many clients
are counted and nothing about their numbers: holders can be asked for that before any of them lets a share out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from koinon.errors import FleetError, FormatError
from koinon.privacy.encrypted_sum import packing
from koinon.privacy.encrypted_sum.binary import Reader
from koinon.privacy.encrypted_sum.packing import Totals
from koinon.privacy.encrypted_sum.pads import Round
from koinon.privacy.encrypted_sum.parameters import DEGREE, INTEGER_BITS, Parameters
from koinon.tree import Array

_SHARE, _COUNT = b"koinon share of a sum 1\n", b"koinon share of a count 1\n"
_WORD = 8


@dataclass(frozen=True)
class Count:
    """A holder's share of how many clients each ciphertext counts: uint64 ``[ciphertexts]``."""

    words: Array

    def to_bytes(self) -> bytes:
        """Return 8 bytes a ciphertext."""
        return b"".join((_COUNT, self.words.astype("<u8", copy=False).tobytes()))

    @classmethod
    def from_bytes(cls, data: bytes, parameters: Parameters) -> Self:
        """Return the count of :meth:`to_bytes`. Raises FormatError for anything else."""
        return cls(_words(Reader(data, _COUNT, "A key holder's count"), parameters.ciphertexts))


@dataclass(frozen=True)
class Share:
    """A share of the plaintexts: uint64 ``[ciphertexts, DEGREE]``, in ``2**-64`` turns round their modulus."""

    words: Array

    @property
    def count(self) -> Count:
        """What of it may be known before the rest is."""
        return Count(self.words[:, 0])

    def to_bytes(self) -> bytes:
        """Return 8 bytes a coefficient."""
        return b"".join((_SHARE, self.words.astype("<u8", copy=False).tobytes()))

    @classmethod
    def from_bytes(cls, data: bytes, parameters: Parameters) -> Self:
        """Return the share of :meth:`to_bytes`. Raises FormatError for anything else."""
        found = _words(Reader(data, _SHARE, "A key holder's share"), parameters.ciphertexts * DEGREE)
        return cls(found.reshape(-1, DEGREE))


def check_count(round: Round, clients: int, shares: Sequence[Count]) -> None:
    """Raise FleetError unless every ciphertext counts the ``clients`` whose pads each of the key holders has taken off."""
    if len(shares) != len(round.keys):
        raise FleetError(
            f"The sum is shared by {len(round.keys)} key holders, and {len(shares)} answered. Without all of them it is "
            "noise: ask each for its share."
        )
    if (_added([share.words for share in shares], round.parameters) != clients).any():
        raise FleetError(
            f"The ciphertext is not the sum of these {clients} clients: one is missing, or there twice, or the sum was changed "
            "or made for another key. This round is not decrypted; look into it before the next one."
        )


def together(round: Round, clients: int, own: Share, shares: Sequence[Share]) -> Totals:
    """Return the totals of all holders' shares and the coordinator's ``own``, which takes the blind off.

    Each holder has had a request with its own pads of the same clients. Raises FleetError unless each plaintext counts the clients whose pads were taken off: no number is returned then.
    """
    check_count(round, clients, [share.count for share in shares])
    return packing.unpacked(
        round.parameters, _added([own.words, *(share.words for share in shares)], round.parameters), clients
    )


def _added(words: Sequence[Array], parameters: Parameters) -> Array:
    """Return the plaintexts that are nearest to the sum of shares: what they are beside that is the ciphertext's noise."""
    noise_bits = INTEGER_BITS - parameters.plain_bits
    added: Array = np.sum(words, axis=0, dtype=np.uint64) + np.uint64(1 << (noise_bits - 1))
    return added >> np.uint64(noise_bits)


def _words(reader: Reader, count: int) -> Array:
    if len(rest := reader.rest()) != count * _WORD:
        raise FormatError(
            f"A share has {len(rest)} bytes, where {count * _WORD} are right: it is of another round, or cut off."
        )
    return np.frombuffer(rest, "<u8")
