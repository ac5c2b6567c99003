"""The ring Z_2^b in which clients' integers are added, and how many bits it needs.

Sums are read as signed. The ring's numbers lie in unsigned containers of 16, 32 or 64 bits, which wrap by themselves: no
remainder is ever computed. Z_2^b is a quotient of the container's ring, so what a number has above its low b bits is of no
account: only the bytes that hold those travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from koinon.errors import ConfigurationError
from koinon.tree import Array

CONTAINERS = (16, 32, 64)


def least_bits(cohort: int, largest: int) -> int:
    """Return the least b for which no sum of ``cohort`` integers of at most ``largest`` in size wraps in Z_2^b.

    The sums are the 2 * cohort * largest + 1 numbers round 0. Raises ConfigurationError where 64 bits are too few.

    >>> least_bits(1024, 2**15 - 1)  # numbers of 16 bits, as in table 2 of Bonawitz et al.
    26
    """
    bits = max(2, (2 * cohort * largest).bit_length())
    if bits > CONTAINERS[-1]:
        raise ConfigurationError(
            f"A sum of {cohort:,} integers of up to {largest:,} needs {bits} bits, and {CONTAINERS[-1]} is the most. "
            "Lower the scale, the clipping norm, the largest weight or the cohort."
        )
    return bits


def share(bits: int, cohort: int) -> int:
    """Return the largest integer, in size, that each of ``cohort`` clients may send so that their sum does not wrap."""
    return ((1 << (bits - 1)) - 1) // cohort


@dataclass(frozen=True)
class Vector:
    """What a client has masked: ``body`` are the numbers of its update, ``tail`` its weight and metric sums.

    ``body`` is uint16, uint32 or uint64 ``[numbers]``, ``tail`` uint64 ``[1 + sums]``, both little-endian and changed in
    place. Vectors add up by ``+=``.
    """

    body: Array
    tail: Array

    def __iadd__(self, other: Vector) -> Self:
        """Add another client's vector in place."""
        np.add(self.body, other.body, out=self.body)
        np.add(self.tail, other.tail, out=self.tail)
        return self

    def copy(self) -> Vector:
        """Return the same numbers in other memory."""
        return Vector(self.body.copy(), self.tail.copy())


def container(bits: int) -> np.dtype[np.unsignedinteger]:
    """Return the narrowest unsigned little-endian type of at least ``bits`` bits. Raises ConfigurationError."""
    for width in CONTAINERS:
        if 2 <= bits <= width:
            return np.dtype(f"<u{width // 8}")
    raise ConfigurationError(f"A ring has 2 to {CONTAINERS[-1]} bits; found {bits!r}.")


def sent_as(numbers: int, bits: int) -> tuple[np.dtype[np.unsignedinteger], tuple[int, ...]]:
    """Return the type and the shape in which numbers travel: as they are, or as the low bytes of each."""
    held, width = container(bits), -(-bits // 8)
    return (held, (numbers,)) if width == held.itemsize else (np.dtype("u1"), (numbers, width))


def narrowed(numbers: Array, bits: int) -> Array:
    """Return numbers as they travel, see :func:`sent_as`: uint8 ``[numbers, ceil(bits / 8)]``, lowest byte first."""
    kind, shape = sent_as(numbers.size, bits)
    if shape == numbers.shape:
        return numbers
    sent, held = np.empty(shape, kind), numbers.view(kind).reshape(numbers.size, numbers.itemsize)
    for place in range(shape[1]):  # five times as fast as a number at a time
        sent[:, place] = held[:, place]
    return sent


def widened(sent: Array) -> Array:
    """Return the numbers of :func:`narrowed` in their containers; above their low bytes is nothing."""
    if sent.ndim == 1:
        return sent
    count, width = sent.shape
    kind = container(8 * width)
    numbers = np.zeros(count, kind)
    whole = max(0, (sent.size - kind.itemsize) // width + 1)  # those behind which a container's bytes follow
    overlapping = np.ndarray(whole, kind, sent.data, strides=(width,))
    np.bitwise_and(overlapping, kind.type((1 << 8 * width) - 1), out=numbers[:whole])
    numbers.view(np.uint8).reshape(count, kind.itemsize)[whole:, :width] = sent[whole:]
    return numbers
