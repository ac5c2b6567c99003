"""Randomness nobody can predict: AES-256 in counter mode under keys of the operating system's generator.

A round's stream is a function of key and round, so a run that was killed goes on with the same noise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from koinon.errors import UnsupportedError
from koinon.tree import Array

KEY_BYTES = 32
_SECRET = b"secret"
_BLOCK = 1 << 15


@dataclass(frozen=True)
class PrivacyKeys:
    """A run's two 256-bit keys. Whoever knows them can take the noise away again.

    ``secret=False`` marks keys that were made from a seed, for tests: nothing drawn from them protects anybody.
    """

    noise: bytes
    cohort: bytes
    secret: bool = True

    @classmethod
    def fresh(cls) -> Self:
        """Return keys from the operating system's generator."""
        return cls(os.urandom(KEY_BYTES), os.urandom(KEY_BYTES))

    @classmethod
    def of_test(cls, seed: int) -> Self:
        """Return keys that everybody who knows the seed can make."""
        noise, cohort = (hashlib.sha256(f"koinon test {what} {seed}".encode()).digest() for what in ("noise", "cohort"))
        return cls(noise, cohort, secret=False)

    @classmethod
    def from_bytes(cls, kept: bytes) -> Self:
        """Return the keys of :meth:`to_bytes`."""
        return cls(kept[:KEY_BYTES], kept[KEY_BYTES : 2 * KEY_BYTES], secret=kept[2 * KEY_BYTES :] == _SECRET)

    def to_bytes(self) -> bytes:
        """Return what a run's journal keeps."""
        return self.noise + self.cohort + (_SECRET if self.secret else b"test")

    @property
    def run(self) -> str:
        """What the ledger calls the run that has these keys; says nothing about them."""
        return hashlib.sha256(b"koinon ledger" + self.noise + self.cohort).hexdigest()[:32]


class RandomStream:
    """The random numbers of one round under one key."""

    def __init__(self, key: bytes, round: int) -> None:
        self._cipher = _cipher(key, round)

    def words(self, count: int) -> Array:
        """Return ``count`` uint64."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), "<u8")

    def bits(self, count: int) -> Array:
        """Return ``count`` uint32."""
        return np.frombuffer(self._cipher.update(bytes(4 * count)), "<u4")

    def normals(self, count: int) -> Array:
        """Return ``count`` standard normals in float64 by the transform of Box and Muller 1958.

        The radius is of 64 bits, so the largest is 9.5. They lie on the grid of float64 that the logarithm and the
        cosine leave, which tells an attacker something who sees them as they are (Mironov, "On significance of the
        least significant bits for differential privacy", CCS 2012): round what is released to a coarser grid.
        """
        parts = list(self._pairs(count))
        return np.concatenate(parts)[:count] if parts else np.empty(0)

    def _pairs(self, count: int) -> Iterator[Array]:
        for start in range(0, count, 2 * _BLOCK):
            pairs = min(_BLOCK, (count - start + 1) // 2)
            uniform = (self.words(2 * pairs).astype(np.float64) + 0.5) * 2.0**-64
            radius = np.sqrt(-2 * np.log(uniform[:pairs]))
            angle = 2 * np.pi * uniform[pairs:]
            yield radius * np.cos(angle)
            yield radius * np.sin(angle)


def _cipher(key: bytes, round: int) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "Noise that protects needs a cipher, and the package cryptography is not installed. "
            "Run: pip install 'koinon[privacy]'"
        ) from error
    nonce = round.to_bytes(8, "big") + bytes(8)
    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
