"""What every step with noise asks of the rest, and how noise is added to an exact sum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from koinon import exact, tree
from koinon.core.protocols import Needs
from koinon.core.types import Context
from koinon.core.wire import Wire
from koinon.errors import CompositionError
from koinon.privacy.mechanism import Normals, Trust
from koinon.privacy.sampling import AccountedSampler
from koinon.tree import Array, Tree

LARGEST = 2.0**12
"""What a deviation stays below: a float64 normal times it has ten bits and more beyond the steps of the exact sum, 2**-30.

With larger ones the noise would more and more often be even, then a multiple of 4, 8, ... steps, and the last bits of
the sum would show.
"""
FLOAT32 = 1e-5
"""By how much float32 may let a norm exceed its bound, relative: what the conformance suite allows."""


class NoiseOnTheSum(ABC):
    """What noise has in common that no single update carries: updates pass through."""

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return the update: noise is for the sum."""
        return value, state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the payload."""
        return payload


class CentralNoise(NoiseOnTheSum):
    """What all noise has in common that the coordinator adds, once a round."""

    @property
    @abstractmethod
    def deviation(self) -> float:
        """The noise's standard deviation over the norm of an update."""

    def check(self, wire: Wire) -> Wire:
        """Return the facts with noise; refuse an update without a bound, a second noise, and noise without room."""
        return noisy_sum(self, wire, self.deviation)

    def check_algorithm(self, algorithm: Any) -> None:
        """Refuse what noise on the sum does not cover: single updates, later steps, draws that favour the fast."""
        check_covered(self, algorithm)

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes unchanged."""
        return value_bytes

    @property
    def trust(self) -> Trust:
        """Return that the coordinator adds it."""
        return Trust.COORDINATOR


def noisy_sum(step: object, wire: Wire, multiplier: float) -> Wire:
    """Return the facts with the noise of ``step`` on the sum, of ``multiplier`` times the norm; refuse noise without room."""
    after, deviation = noisy_wire(step, wire), multiplier * (wire.l2_bound or 0.0)
    if deviation >= LARGEST:
        raise CompositionError(
            f"{step!r} would add noise of deviation {deviation:.3g}, and the exact sum has room for {LARGEST:.3g}. "
            "Clip to a smaller norm."
        )
    return after


def noisy_wire(step: object, wire: Wire) -> Wire:
    """Return the facts with the noise of ``step``; refuse an update without a bound, and a second noise."""
    if wire.noise_by is not None:
        raise CompositionError(f"{step!r} follows {wire.noise_by}: one of the two is enough. Drop the other.")
    if wire.l2_bound is None:
        raise CompositionError(
            f"{step!r} needs a bounded update. Put Clip before it, after all that may lengthen an update."
        )
    return replace(wire, noise_by=repr(step))


def check_covered(step: object, algorithm: Any) -> None:
    """Refuse what the noise of ``step`` on the sum does not cover: single updates, later steps, unknown draws."""
    if algorithm.channel[-1] is not step:
        raise CompositionError(
            f"{algorithm.channel[-1]!r} stands after {step!r}, whose noise is for what comes before it. "
            f"Put {step!r} last in the channel."
        )
    if algorithm.aggregator.needs is not Needs.SUM:
        raise CompositionError(
            f"{step!r} covers the sum of all updates, but {algorithm.aggregator!r} does not work on that sum, and how "
            f"far one client can move its result is not known. Use Mean(), or LocalGaussian in place of {step!r}."
        )
    if algorithm.schedule.over_selection != 1:
        raise CompositionError(
            f"{algorithm.schedule!r} takes the first who answer, so a cohort is not what {algorithm.sampler!r} drew "
            f"and {step!r} cannot be accounted. Use over_selection=1."
        )
    if not isinstance(algorithm.sampler, AccountedSampler):
        raise CompositionError(
            f"{algorithm.sampler!r} does not say how it draws, so {step!r} cannot be accounted. Use Poisson(rate), "
            "All() or Uniform(size), or give it participation, expected and choose."
        )


def sensitivity(bound: float, numbers: int) -> float:
    """Return how far one client of ``numbers`` numbers clipped to ``bound`` can move the exact sum.

    Float32 may exceed the bound a little, and rounding moves every number by half of 2**-30 at most.
    """
    return float(bound * (1 + FLOAT32) + 0.5 * numbers**0.5 / exact.SCALE)


def with_noise(total: Tree, deviation: float, normals: Normals) -> Tree:
    """Return an exact int64 total with ``deviation`` times ``normals``, rounded to the total's own steps."""

    def noisy(t: Array) -> Array:
        noise = np.rint(normals(int(np.size(t))) * (exact.SCALE * deviation))
        return t + noise.astype(np.int64).reshape(np.shape(t))

    return tree.map(noisy, total)
