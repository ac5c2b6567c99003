"""A random rotation that spreads an update over all its numbers, and rounding that cannot lengthen it much.

After it no number of an update stands out, so a narrow ring wraps less. Suresh et al., "Distributed Mean Estimation with
Limited Communication", ICML 2017; conditional rounding: Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian
Mechanism for Federated Learning with Secure Aggregation", ICML 2021, section 4.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum.primitives import keystream, stream
from koinon.tree import Array

_RADIX = 4  # bits of an index that one small matrix works on
_TRIES = 200  # of a rounding's two ways at most exp(-1/2) of the chance is too long, so all are once in e**100


def padded(numbers: int) -> int:
    """Return the power of two that a rotation makes of so many numbers."""
    return 1 << max(0, numbers - 1).bit_length()


def rotate(x: Array, key: bytes) -> Array:
    """Return float64 ``H D x / sqrt(d)`` of length ``padded``: D random signs from a key that all know, H Hadamard's.

    Lengths stay. ``key`` is 32 bytes that nobody knew when the clients' updates were made.
    """
    wide = np.zeros(padded(np.size(x)))
    wide[: np.size(x)] = x
    wide *= _signs(wide.size, key)
    return _hadamard(wide)


def rotate_back(y: Array, numbers: int, key: bytes) -> Array:
    """Return the ``numbers`` float64 whose rotation, or the sum of whose rotations, is ``y``."""
    return (_hadamard(np.array(y, np.float64)) * _signs(np.size(y), key))[:numbers]


def longest_rounded(length: float, numbers: int) -> float:
    """Return the L2 norm that :func:`conditional_round` keeps to, for numbers of a norm of at most ``length`` steps.

    Proposition 22 of the paper with beta = exp(-1/2).
    """
    always = length + sqrt(numbers)
    mostly = sqrt(length**2 + numbers / 4 + length + sqrt(numbers) / 2)
    return min(always, mostly)


def conditional_round(x: Array, length: float, key: bytes) -> Array:
    """Return int64 ``x`` rounded up or down by chance, right on average but for what is too long, which is drawn again.

    ``length`` bounds the L2 norm of ``x``; that of the result is at most :func:`longest_rounded`. ``key`` is 32 secret bytes.
    Raises ProtocolError for an ``x`` that is longer.
    """
    norm, bound = float(np.sqrt(np.vdot(x, x))), longest_rounded(length, np.size(x))
    if not norm <= length * (1 + 1e-9):  # also where it is no number
        raise ProtocolError(
            f"An update of at most {length:g} steps was announced; this one has {norm:g}. Clip it first."
        )
    down = np.floor(x)
    rest = x - down
    for part in range(_TRIES):
        words = np.frombuffer(keystream(key, part).update(bytes(8 * np.size(x))), "<u8")
        rounded = down + (words * 2.0**-64 < rest)
        if np.vdot(rounded, rounded) <= bound**2:
            return rounded.astype(np.int64)
    raise ProtocolError(f"{_TRIES} roundings of an update were all too long: the generator is broken.")


def _signs(count: int, key: bytes) -> Array:
    return 1.0 - 2.0 * np.unpackbits(np.frombuffer(stream(key, count // 8 + 1), np.uint8), count=count)


def _hadamard(x: Array) -> Array:
    """Return H x / sqrt(d). H of many bits is the Kronecker product of those of four of them, one after the other."""
    power = x.size.bit_length() - 1
    for done in range(0, power, _RADIX):
        bits = min(_RADIX, power - done)
        x = _matrix(bits) @ x.reshape(-1, 1 << bits, 1 << done)
    return x.reshape(-1) / sqrt(x.size)


def _matrix(power: int) -> Array:
    found = np.ones((1, 1))
    for _ in range(power):
        found = np.block([[found, found], [found, -found]])
    return found
