"""Noise that clients add inside a secure sum: each a part, and the parts of the survivors suffice.

A Skellam number is the difference of two Poisson numbers; sums of them are Skellam again, exactly, so what the coordinator
sees has the noise that is accounted, on the grid of the integers, and no floating point is in it. Agarwal, Kairouz and Liu,
"The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from math import ceil, sqrt

import numpy as np

from koinon.errors import ConfigurationError
from koinon.privacy.secure_sum.primitives import stream
from koinon.tree import Array

_FINE = 16  # bits of a variance behind the point
_WIDE = 192  # bits of a probability while it is computed
_WORD = 64
_LARGEST_DEVIATION = 2.0**17  # steps; more are finer than any noise needs, and a table of many megabytes
_BLOCK = 1 << 17
_LEADING = 16  # bits of a word that say most sizes


@dataclass(frozen=True)
class Skellam:
    """The noise of one client: symmetric, of the given variance in squared steps, drawn from a table of exact chances.

    A number's chance is off by less than 2**-120, and none is beyond 14 deviations (a chance of 2**-140).
    """

    variance: float

    def __post_init__(self) -> None:
        if not 0.01 <= self.variance <= _LARGEST_DEVIATION**2:
            raise ConfigurationError(
                f"A variance of 0.01 to {_LARGEST_DEVIATION**2:g} squared steps can be drawn; found {self.variance!r}. "
                "Lower the scale: noise of thousands of steps needs no finer ones."
            )

    @staticmethod
    def of_share(total: float, survivors: int) -> Skellam:
        """Return the noise of one of many clients, any ``survivors`` of whom bring a ``total`` variance together."""
        return tabulated(ceil(total / survivors * 2**_FINE) / 2**_FINE)

    def draw(self, count: int, key: bytes) -> Array:
        """Return ``count`` int64; ``key`` is 32 bytes from the operating system's generator, for this draw alone."""
        upper, lower = self._table
        words = np.frombuffer(stream(key, 2 * 8 * count), "<u8")
        found = np.empty(count, np.int64)
        for start in range(0, count, _BLOCK):
            high, low = words[2 * start : 2 * (start + _BLOCK) : 2], words[2 * start + 1 : 2 * (start + _BLOCK) : 2]
            size = self._sizes(high)
            for tie in np.nonzero(upper[np.minimum(size, len(upper) - 1)] == high)[0]:  # one in 2**50
                while (
                    size[tie] < len(upper)
                    and upper[size[tie]] == high[tie]
                    and low[tie] >> np.uint64(1) >= lower[size[tie]]
                ):
                    size[tie] += 1
            found[start : start + _BLOCK] = np.where(low & np.uint64(1), size, -size)
        return found

    def _sizes(self, words: Array) -> Array:
        """Return the first size whose sum of chances is no less than each word; most are known by its leading bits."""
        upper, (guide, open_) = self._table[0], self._guide
        leading = (words >> np.uint64(_WORD - _LEADING)).astype(np.int64)
        size = guide[leading]
        unsure = np.nonzero(open_[leading])[0]
        size[unsure] = np.searchsorted(upper, words[unsure], side="left")
        return size

    def chances(self) -> list[int]:
        """Return the chance of each size 0, 1, 2, ... in units of 2**-192; the larger sizes have none.

        The chance of k is exp(-v) I_k(v), with modified Bessel functions, which are computed from above in whole numbers:
        I_{k-1} = I_{k+1} + (2 k / v) I_k (Miller's way; downwards it is stable).
        """
        v, last = ceil(self.variance * 2**_FINE), ceil(14 * sqrt(self.variance)) + 40
        bessel = [0, 1 << _WIDE]
        for k in range(last, 0, -1):
            bessel.append(bessel[-2] + (2 * k << _FINE) * bessel[-1] // v)
        bessel.reverse()
        sizes = [bessel[0], *(2 * value for value in bessel[1:-1])]
        whole = sum(sizes)
        return [(value << _WIDE) // whole for value in sizes]

    @cached_property
    def _table(self) -> tuple[Array, Array]:
        """Return the sums of chances as words: 64 bits, and the next 63."""
        sums = [value >> (_WIDE - 127) for value in accumulate(self.chances())]
        upper = np.array([min(value >> 63, 2**_WORD - 1) for value in sums], np.uint64)
        return upper, np.array([value & (2**63 - 1) for value in sums], np.uint64)

    @cached_property
    def _guide(self) -> tuple[Array, Array]:
        """Return for every value of a word's leading bits the least size it may have, and whether there are others."""
        upper, first = self._table[0], np.arange(1 << _LEADING, dtype=np.uint64) << np.uint64(_WORD - _LEADING)
        last = first | np.uint64((1 << (_WORD - _LEADING)) - 1)
        least, most = (np.searchsorted(upper, words, side="left") for words in (first, last))
        return least, least != most


@lru_cache(maxsize=4)
def tabulated(variance: float) -> Skellam:
    """Return the noise of a variance. A table takes a tenth of a second, so that of the rounds before is used again."""
    return Skellam(variance)
