"""Central differential privacy: Gaussian noise on the exact sum, once a round, by the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from koinon import exact, tree
from koinon.core.protocols import Needs
from koinon.core.ranges import positive
from koinon.core.types import Context
from koinon.core.wire import Wire
from koinon.errors import CompositionError
from koinon.privacy.mechanism import Adjacency, Event, Normals, Trust
from koinon.privacy.sampling import AccountedSampler, Participation, Sampling
from koinon.tree import Tree

_FLOAT32 = 1e-5
"""By how much float32 may let a norm exceed its bound, relative: what the conformance suite allows."""


@dataclass(frozen=True)
class GaussianNoise:
    """Add noise of standard deviation ``multiplier`` times the clipping norm to the sum of a round's updates.

    The norm is what the steps before it promise; the sum is then divided by the expected size of the cohort, and every
    client weighs 1. The noise is rounded to the grid of the exact sum, 2**-30, so what is released lies on a grid that
    no data changes. It stands last in the channel. McMahan et al., "Learning Differentially Private Recurrent
    Language Models", ICLR 2018.
    """

    multiplier: float

    def __post_init__(self) -> None:
        positive(self, "multiplier")

    def check(self, wire: Wire) -> Wire:
        """Return the facts with noise; refuse an update without a bound, and a second noise."""
        if wire.noise_by is not None:
            raise CompositionError(f"{self!r} follows {wire.noise_by}: one of the two is enough. Drop the other.")
        if wire.l2_bound is None:
            raise CompositionError(
                f"{self!r} needs a bounded update. Put Clip before it, after all that may lengthen an update."
            )
        return replace(wire, noise_by=repr(self))

    def check_algorithm(self, algorithm: Any) -> None:
        """Refuse what the noise does not cover: single updates, later steps, draws that favour the fast."""
        if algorithm.channel[-1] is not self:
            raise CompositionError(
                f"{algorithm.channel[-1]!r} stands after {self!r}, whose noise is for what comes before it. "
                f"Put {self!r} last in the channel."
            )
        if algorithm.aggregator.needs is not Needs.SUM:
            raise CompositionError(
                f"{self!r} covers the sum of all updates, but {algorithm.aggregator!r} does not work on that sum, and how "
                f"far one client can move its result is not known. Use Mean(), or LocalGaussian in place of {self!r}."
            )
        if algorithm.schedule.over_selection != 1:
            raise CompositionError(
                f"{algorithm.schedule!r} takes the first who answer, so a cohort is not what {algorithm.sampler!r} drew "
                f"and {self!r} cannot be accounted. Use over_selection=1."
            )
        if not isinstance(algorithm.sampler, AccountedSampler):
            raise CompositionError(
                f"{algorithm.sampler!r} does not say how it draws, so {self!r} cannot be accounted. Use Poisson(rate), "
                "All() or Uniform(size), or give it participation, expected and choose."
            )

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return the update: noise is for the sum."""
        return value, state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the payload."""
        return payload

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes unchanged."""
        return value_bytes

    @property
    def trust(self) -> Trust:
        """Return that the coordinator adds it."""
        return Trust.COORDINATOR

    def event(self, participation: Participation) -> Event:
        """Return a round's event. A cohort of fixed size is counted without amplification, with twice the norm."""
        if participation.sampling is Sampling.FIXED_SIZE:
            return Event(self.multiplier / 2, 1.0, Adjacency.REPLACE_ONE)
        return Event(self.multiplier, participation.rate, Adjacency.ADD_OR_REMOVE)

    def release(self, total: Tree, bound: float, normals: Normals) -> Tree:
        """Return the int64 total with noise. ``bound`` is the clipping norm; its rounding is allowed for."""
        deviation = exact.SCALE * self.multiplier * sensitivity(bound, tree.size(total))

        def noisy(t: Any) -> Any:
            noise = np.rint(normals(int(np.size(t))) * deviation)
            return t + noise.astype(np.int64).reshape(np.shape(t))

        return tree.map(noisy, total)


def sensitivity(bound: float, numbers: int) -> float:
    """Return how far one client of ``numbers`` numbers clipped to ``bound`` can move the exact sum.

    Float32 may exceed the bound a little, and rounding moves every number by half of 2**-30 at most.
    """
    return float(bound * (1 + _FLOAT32) + 0.5 * numbers**0.5 / exact.SCALE)
