"""Differential privacy without trust in the coordinator: clients' integers with clients' noise, under clients' masks.

An update is rotated, scaled, rounded so that it stays short, and has a part of the noise added before it is masked. The
coordinator sees the sum, and with it the noise of all survivors. Kairouz, Liu and Steinke, ICML 2021; Agarwal, Kairouz and
Liu, NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, log, sqrt

import numpy as np

from koinon.errors import ConfigurationError
from koinon.privacy.secure_sum import skellam
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.primitives import KEY_BYTES, hkdf
from koinon.privacy.secure_sum.ring import least_bits
from koinon.privacy.secure_sum.rotation import conditional_round, longest_rounded, padded, rotate, rotate_back
from koinon.privacy.secure_sum.skellam import Skellam
from koinon.tree import Array

_RARE = 2.0**-30  # the chance, in a round, that some number does not fit into a client's share
_DEVIATIONS = 12


@dataclass(frozen=True, kw_only=True)
class DistributedNoise:
    """Noise of ``multiplier`` times the longest a client can be, in the sum of updates of an L2 norm of ``norm``.

    ``survivors`` is how many *honest* clients' noise suffices: those who must survive, less those who may be corrupt and
    know their own. ``scale`` is the exponent of the fixed point, ``numbers`` the length of an update. All weigh 1.
    """

    norm: float
    multiplier: float
    numbers: int
    scale: int
    survivors: int

    def __post_init__(self) -> None:
        if not (
            0 < self.norm and isfinite(self.norm) and 0 < self.multiplier and self.numbers > 0 and self.survivors > 0
        ):
            raise ConfigurationError(f"All of {self!r} must be above 0.")

    @property
    def length(self) -> float:
        """The norm in steps."""
        return self.norm * 2.0**self.scale

    @property
    def sensitivity(self) -> float:
        """The longest vector of integers that one client adds, before its noise."""
        return longest_rounded(self.length, padded(self.numbers))

    @property
    def variance(self) -> float:
        """The variance of the noise in the sum, at least, in squared steps."""
        return (self.multiplier * self.sensitivity) ** 2

    @property
    def own(self) -> Skellam:
        """The noise of one client."""
        return Skellam.of_share(self.variance, self.survivors)

    def layout(self, cohort: int, sums: int) -> Layout:
        """Return the vector of the least ring: rotated numbers are small, all but once in 2**30 rounds."""
        size = padded(self.numbers)
        # A rotated number is a sum of signed parts of an update: subgaussian of deviation length / sqrt(size) (Hoeffding).
        rotated = self.length * min(1.0, sqrt(2 * log(4 * size * cohort / _RARE) / size)) + 1
        largest = ceil(rotated + _DEVIATIONS * sqrt(self.own.variance))
        return Layout(numbers=size, sums=sums, bits=least_bits(cohort, largest), scale=self.scale, cohort=cohort)

    def encode(self, update: Array, rotation: bytes, entropy: bytes) -> Array:
        """Return the int64 ``[padded]`` that a client masks.

        ``rotation`` is the 32 bytes that all clients of the round know, ``entropy`` 32 from the operating system's generator
        for this update alone. Raises ProtocolError for an update longer than ``norm``.
        """
        rounding, noise = (hkdf(entropy, bytes(KEY_BYTES), what) for what in (b"rounding", b"noise"))
        steps = rotate(np.asarray(update, np.float64), rotation) * 2.0**self.scale
        return conditional_round(steps, self.length, rounding) + self.own.draw(steps.size, noise)

    def decode(self, total: Array, rotation: bytes) -> Array:
        """Return the float64 sum of the updates, with its noise, of the int64 total of a layout."""
        return rotate_back(total / 2.0**self.scale, self.numbers, rotation)

    def epsilon(self, rounds: int, delta: float) -> float:
        """Return epsilon at ``delta`` after so many rounds in which ``survivors`` honest clients survived, or more."""
        return skellam.epsilon(
            variance=self.variance,
            l2=self.sensitivity,
            numbers=padded(self.numbers),
            rounds=rounds,
            delta=delta,
        )
