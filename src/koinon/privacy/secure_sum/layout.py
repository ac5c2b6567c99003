"""How an update, its weight and its metric sums become one vector of integers, and how their sum is read.

An update is fixed point of a scale 2**s: ``rint(x * (w * 2**s))`` in float32, the bracket first, as
:func:`koinon.exact.convert` does with another scale. So a masked total is, bit for bit, the total without masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from koinon import exact
from koinon.errors import ConfigurationError, ProtocolError
from koinon.privacy.secure_sum.ring import Vector, container, least_bits, sent_as, share
from koinon.tree import Array

SUM_SCALE = 2.0**20
"""Units per 1.0 of a metric sum."""
_BLOCK = 1 << 15
_SLACK = 1 + 2.0**-10  # the float32 norm of a clipped update may exceed its bound by rounding


@dataclass(frozen=True)
class Total:
    """What a sum of vectors says: int64 ``update`` at the layout's scale, the sum of weights, float64 ``sums``."""

    update: Array
    weight: int
    sums: Array


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The vector of one update of ``numbers`` float32, its weight and ``sums`` metric sums.

    ``bits`` is the width of the update's ring, ``scale`` the exponent s of its fixed point. No sum of ``cohort`` vectors
    can wrap: each client is held to its share of the ring. Weights are whole numbers from 1 to ``largest_weight``.
    """

    numbers: int
    sums: int
    bits: int
    scale: int
    cohort: int
    largest_weight: int = 1

    def __post_init__(self) -> None:
        container(self.bits)
        whole = {"numbers": self.numbers, "cohort": self.cohort, "largest_weight": self.largest_weight}
        for name, value in whole.items():
            if not (isinstance(value, int) and 1 <= value < 2**32):
                raise ConfigurationError(f"Layout.{name} must be a whole number from 1; found {value!r}.")
        if not (isinstance(self.sums, int) and 0 <= self.sums < 2**16 and -126 <= self.scale <= 126):
            raise ConfigurationError(f"0 to 65,535 sums and a scale of -126 to 126 are possible; found {self!r}.")
        if self.largest_weight >= exact.LARGEST_WEIGHT or not share(self.bits, self.cohort):
            raise ConfigurationError(
                f"{self!r} leaves no room: weights must lie below 2**24, and a ring of {self.bits} bits holds at most "
                f"{2 ** (self.bits - 1) - 1:,} clients."
            )

    @classmethod
    def of_scale(
        cls, numbers: int, sums: int, *, scale: int, cohort: int, bound: float, largest_weight: int = 1
    ) -> Layout:
        """Return the layout of the least ring for a scale, a cohort and updates whose numbers are within ``bound``."""
        largest = math.ceil(bound * largest_weight * 2.0**scale * _SLACK)
        bits = least_bits(cohort, max(1, largest))
        return cls(numbers=numbers, sums=sums, bits=bits, scale=scale, cohort=cohort, largest_weight=largest_weight)

    @classmethod
    def of_bits(
        cls, numbers: int, sums: int, *, bits: int, cohort: int, bound: float, largest_weight: int = 1
    ) -> Layout:
        """Return the layout of the finest scale for a ring, a cohort and updates whose numbers are within ``bound``."""
        room = share(bits, cohort) / (bound * largest_weight * _SLACK)
        if room <= 0:
            raise ConfigurationError(f"A ring of {bits} bits has no room for {cohort:,} clients. Use more bits.")
        scale = math.floor(math.log2(room))
        return cls(numbers=numbers, sums=sums, bits=bits, scale=scale, cohort=cohort, largest_weight=largest_weight)

    @property
    def share(self) -> int:
        """The largest integer, in size, that one client may send for a number of its update."""
        return share(self.bits, self.cohort)

    @property
    def nbytes(self) -> int:
        """The bytes of a vector as it travels."""
        return self.body_bytes + 8 * (1 + self.sums)

    @property
    def body_bytes(self) -> int:
        """The bytes of its update alone."""
        kind, shape = sent_as(self.numbers, self.bits)
        return math.prod(shape) * kind.itemsize

    def zero(self) -> Vector:
        """Return the empty sum."""
        return Vector(np.zeros(self.numbers, container(self.bits)), np.zeros(1 + self.sums, "<u8"))

    def fits(self, vector: Vector) -> bool:
        """Return whether a vector has this layout."""
        shapes = (vector.body.shape, vector.tail.shape) == ((self.numbers,), (1 + self.sums,))
        return shapes and bool(vector.body.dtype == container(self.bits))

    def encode(self, update: Array, weight: int, sums: Array) -> Vector:
        """Return the vector of float32 ``update`` ``[numbers]`` and float64 ``sums`` ``[sums]``.

        Raises ProtocolError for a weight above its cap, for a number that is not finite, and for one that is beyond this
        client's share: the sum would say something else than it is.
        """
        vector = self._start(np.shape(update), weight, sums)
        _convert(update, np.float32(weight) * np.float32(2.0**self.scale), self.share, vector.body)
        return vector

    def encode_integers(self, numbers: Array, weight: int, sums: Array) -> Vector:
        """Return the vector of int64 ``numbers`` that are fixed point, weight and noise already.

        What does not fit wraps: it is noise that hides an update, and to refuse what is large would tell of it.
        Raises as :meth:`encode` for weight and sums.
        """
        vector = self._start(np.shape(numbers), weight, sums)
        vector.body[:] = numbers.astype(vector.body.dtype)
        return vector

    def _start(self, shape: tuple[int, ...], weight: int, sums: Array) -> Vector:
        """Return the vector of zeros with its weight and sums, all of it checked."""
        if not (isinstance(weight, int) and 1 <= weight <= self.largest_weight):
            raise ProtocolError(
                f"A weight of 1 to {self.largest_weight:,} fits into this sum, and this client's is none. "
                "Lower this client's weight (uniform weights weigh 1), or agree on a larger one before the run."
            )
        if shape != (self.numbers,) or np.shape(sums) != (self.sums,):
            raise ProtocolError(
                f"{self.numbers:,} numbers and {self.sums} sums were agreed on; found shapes {shape} and "
                f"{np.shape(sums)}. Both sides need the same app."
            )
        vector = self.zero()
        wide = np.rint(np.asarray(sums, np.float64) * SUM_SCALE)
        _within(wide, share(64, self.cohort), "metric sum")
        vector.tail[0] = weight
        vector.tail[1:] = wide.astype(np.int64).view(np.uint64)
        return vector

    def decode(self, total: Vector) -> Total:
        """Return what the sum of at most ``cohort`` unmasked vectors says; only their low ``bits`` are read."""
        above = total.body.dtype.type(8 * total.body.itemsize - self.bits)
        signed = (total.body << above).view(f"<i{total.body.itemsize}").astype(np.int64) >> int(above)
        return Total(signed, int(total.tail[0]), total.tail[1:].view("<i8") / SUM_SCALE)


def _convert(update: Array, factor: np.float32, most: int, into: Array) -> None:
    """Write ``rint(update * factor)`` in blocks that stay in cache, each checked before it is written."""
    signed, scaled = into.view(f"<i{into.itemsize}"), np.empty(_BLOCK, np.float32)
    source = np.ascontiguousarray(update, np.float32)
    for start in range(0, source.size, _BLOCK):
        part = source[start : start + _BLOCK]
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large or not finite is refused below
            real = np.multiply(part, factor, out=scaled[: part.size])
            np.rint(real, out=real)
        _within(real, most, "number of the update")
        np.copyto(signed[start : start + part.size], real, casting="unsafe")


def _within(real: Array, most: int, what: str) -> None:
    """Raise ProtocolError for a number that does not fit. It is not told: the coordinator, who chose the model, hears why."""
    largest = max(float(real.max()), -float(real.min())) if real.size else 0.0
    if not largest <= most:  # also where it is not a number
        raise ProtocolError(
            f"A {what} is not finite, or above {most:,} steps of the fixed point, this client's share of the sum. "
            "Lower the learning rate, or put Clip into the channel."
        )
