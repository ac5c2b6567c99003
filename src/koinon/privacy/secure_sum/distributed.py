"""Differential privacy without trust in the coordinator: clients' integers with clients' noise, under clients' masks.

An update is rotated, scaled, rounded so that it stays short, and has a part of the noise added before it is masked. The
coordinator sees the sum, and with it the noise of all survivors. Kairouz, Liu and Steinke, ICML 2021; Agarwal, Kairouz and
Liu, NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, log, sqrt

import numpy as np

from koinon.errors import ConfigurationError, ProtocolError
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.neighbours import Assumptions, honest_survivors
from koinon.privacy.secure_sum.primitives import KEY_BYTES, PROTOCOL, digest, hkdf
from koinon.privacy.secure_sum.ring import least_bits
from koinon.privacy.secure_sum.rotation import conditional_round, longest_rounded, padded, rotate, rotate_back
from koinon.privacy.secure_sum.skellam import Skellam, tabulated
from koinon.tree import Array

_RARE = 2.0**-30  # the chance, in a round, that some number of the sum does not fit into the ring
_DEVIATIONS = 12


def most_noise(least: int, cohort: int, assumptions: Assumptions) -> float:
    """Return how many times the noise that suffices is in a sum of all members, at most, for ``least`` to ``cohort`` of them."""
    return max(members / honest_survivors(members, assumptions) for members in range(least, max(least, cohort) + 1))


def rotation_key(transcript: bytes) -> bytes:
    """Return what all members of a cohort rotate with; it hangs on fresh keys of every one of them."""
    return digest(PROTOCOL, b" rotation", transcript)


@dataclass(frozen=True, kw_only=True)
class SharedNoise:
    """Noise of ``multiplier`` times the longest a client can be, in the sum of updates of an L2 norm of ``norm``.

    ``survivors`` is how many *honest* clients' noise suffices (:func:`honest_survivors`). ``scale`` is the exponent of the fixed
    point, ``numbers`` the length of an update. All weigh 1.
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

    @cached_property
    def own(self) -> Skellam:
        """The noise of one client."""
        return Skellam.of_share(self.variance, self.survivors)

    def layout(self, cohort: int, sums: int, excess: float) -> Layout:
        """Return the vector of the least ring in which a sum of at most ``cohort`` fits, all but once in 2**30 rounds.

        ``excess`` is :func:`most_noise`. One vector may wrap, and so may a sum of some: nothing is read of either.
        """
        size = padded(self.numbers)
        # A rotated number is a sum of signed parts of an update: subgaussian of deviation length / sqrt(size) (Hoeffding).
        rotated = self.length * min(1.0, sqrt(2 * log(4 * size / _RARE) / size)) + 1
        largest = ceil(cohort * rotated + _DEVIATIONS * sqrt(excess * self.variance))
        return Layout(numbers=size, sums=sums, bits=least_bits(1, largest), scale=self.scale, cohort=cohort)

    def check(self, update: Array) -> None:
        """Raise ProtocolError for an update that is longer than ``norm`` or not finite: no noise would cover it."""
        wide = np.asarray(update, np.float64)
        if not np.sqrt(np.vdot(wide, wide)) <= self.norm * (1 + 1e-9):
            raise ProtocolError(
                f"An update of a norm of at most {self.norm:g} was announced; this one has {np.sqrt(np.vdot(wide, wide)):g}. "
                "Clip it first; one that is not finite comes from a training that diverged."
            )

    def encode(self, update: Array, rotation: bytes, entropy: bytes) -> Array:
        """Return the int64 ``[padded]`` that a client masks.

        ``rotation`` is the 32 bytes that all clients of the round know, ``entropy`` 32 from the operating system's generator
        for this update alone. Raises ProtocolError for an update longer than ``norm``.
        """
        self.check(update)
        rounding, noise = _secrets(entropy)
        steps = rotate(np.asarray(update, np.float64), rotation) * 2.0**self.scale
        return conditional_round(steps, self.length, rounding) + self.own.draw(steps.size, noise)

    def decode(self, total: Array, rotation: bytes) -> Array:
        """Return the float64 sum of the updates, with its noise, of the int64 total of a layout."""
        return rotate_back(total / 2.0**self.scale, self.numbers, rotation)

    def in_sum(self, total: Array, clients: int, entropy: bytes) -> Array:
        """Return the float64 ``total`` of so many clients' updates as :meth:`decode` would have returned it.

        Sums of Skellam numbers are Skellam, so the noise is of the very law of the sum of the clients' own. The total is
        rounded once, where each client rounds: the variance of a number is less by up to a quarter of a squared step a client.
        """
        rounding, noise = _secrets(entropy)
        rotation = rotation_key(entropy)
        steps = rotate(np.asarray(total, np.float64), rotation) * 2.0**self.scale
        summed = tabulated(clients * self.own.variance).draw(steps.size, noise)
        whole = conditional_round(steps, clients * self.length, rounding)
        return self.decode(whole + summed, rotation)


def _secrets(entropy: bytes) -> tuple[bytes, bytes]:
    rounding, noise = (hkdf(entropy, bytes(KEY_BYTES), what) for what in (b"rounding", b"noise"))
    return rounding, noise
