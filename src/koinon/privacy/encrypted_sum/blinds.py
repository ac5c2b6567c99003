"""The blind over a sum: why the key holder that decrypts it sees no number of it.

The coordinator adds the blind to the ciphertexts before it asks, and takes it off the answer: one more share of the sum. In every
coefficient but the first, which counts the clients, it is uniform modulo the ciphertexts' modulus. So whoever has the
lattice's secret finds something uniform there, noise and all, in however many sums it is shown of however similar clients.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

import numpy as np

from koinon.errors import ConfigurationError
from koinon.privacy.encrypted_sum.parameters import DEGREE, INTEGER_BITS, MODULUS, MODULUS_BITS
from koinon.privacy.random_bits import KEY_BYTES, RandomStream
from koinon.tree import Array

_SPARE = np.uint64(INTEGER_BITS - MODULUS_BITS)
_SHORT = np.uint64((1 << MODULUS_BITS) - MODULUS)  # 14 bits: what the modulus lacks to a power of two
_CUT = np.uint64(10)  # low bits without which a product with _SHORT fits 64 bits


class Blind:
    """A function of a secret and of the very sum: after a restart the same one again, and of another sum another one."""

    def __init__(self, secret: bytes, total: bytes) -> None:
        if len(secret) < KEY_BYTES:
            raise ConfigurationError(f"A sum is blinded under a secret of {KEY_BYTES} bytes; found {len(secret)}.")
        self._key = hmac.digest(secret, total, "sha256")

    def polynomials(self) -> Iterator[Array]:
        """Yield what is added to each ciphertext's first polynomial: uint64 ``[DEGREE]`` below MODULUS."""
        stream = RandomStream(self._key, 0)
        while True:
            words = stream.words(DEGREE) >> _SPARE
            while (over := words >= MODULUS).any():
                words[over] = stream.words(int(over.sum())) >> _SPARE
            words[0] = 0  # the count, which the holder checks before it answers
            yield words


def turns(words: Array) -> Array:
    """Return numbers below MODULUS in units of ``2**-64`` turns round it, at most two units too small: uint64."""
    return (words << _SPARE) + ((words >> _CUT) * _SHORT >> (MODULUS_BITS - _SPARE - _CUT))
