"""Local differential privacy: every client adds the noise itself, and trusts nobody with its update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from koinon import tree
from koinon.channel.central import FLOAT32, noisy_wire
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, UnsupportedError
from koinon.privacy.analytic import gaussian_sigma
from koinon.privacy.mechanism import Adjacency, Event, Trust
from koinon.privacy.random_bits import PrivacyKeys, RandomStream
from koinon.privacy.sampling import Participation
from koinon.tree import Array, Tree

_FINENESS = 18
"""Numbers are sent in steps of 2**-18 of the noise: the low bits of a float would tell something of the update."""


@dataclass(frozen=True)
class LocalGaussian:
    """Add noise to each update, so that what a client sends in a round is (``epsilon``, ``delta``)-private.

    To replace all of a client's data moves its update by twice the clipping norm at most. The norm is what the steps
    before promise, the standard deviation that of the analytic Gaussian mechanism. Keys come fresh from the client's
    operating system, so no two runs are alike, and a compiled program cannot do it: use ``engine="reference"``.
    Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018.
    """

    epsilon: float
    delta: float = 1e-5

    def __post_init__(self) -> None:
        gaussian_sigma(self.epsilon, self.delta)

    def check(self, wire: Wire) -> Wire:
        """Return the facts with noise and without a bound; refuse one without, codes, what is hidden, a second noise."""
        if wire.domain is not Domain.REAL:
            raise CompositionError(
                f"{self!r} works on real numbers, but receives {wire.domain.name}. "
                "Move it before the step that made them so."
            )
        return replace(noisy_wire(self, wire), l2_bound=None)

    def check_algorithm(self, algorithm: Any) -> None:
        """Refuse nothing: what is done with a private update stays private."""

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return the update with noise, float32. Never the same twice."""
        concrete = tree.map(partial(_concrete, self), value)
        bound = context.bound()
        if bound is None:
            raise CompositionError(f"{self!r} was given no bound on the update. Put Clip before it.")
        deviation = self.deviation(bound)
        step = 2.0 ** (math.ceil(math.log2(deviation)) - _FINENESS)
        normals = RandomStream(PrivacyKeys.fresh().noise, 0).normals

        def noisy(x: Array) -> Array:
            wide = x.astype(np.float64)
            return (np.rint((wide + deviation * normals(wide.size).reshape(wide.shape)) / step) * step).astype(
                np.float32
            )

        return tree.map(noisy, concrete), state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the payload."""
        return payload

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes unchanged."""
        return value_bytes

    def deviation(self, bound: float) -> float:
        """Return the noise's standard deviation for updates of an L2 norm of at most ``bound``."""
        return gaussian_sigma(self.epsilon, self.delta) * 2 * bound * (1 + FLOAT32)

    @property
    def trust(self) -> Trust:
        """Return that nobody is trusted."""
        return Trust.NOBODY

    def event(self, participation: Participation) -> Event:
        """Return a round's event: no sampling is counted, since the coordinator knows who takes part."""
        return Event(gaussian_sigma(self.epsilon, self.delta), 1.0, Adjacency.REPLACE_ONE)


def _concrete(step: LocalGaussian, x: Array) -> Array:
    try:
        return np.asarray(x)
    except TypeError as error:  # a number that a compiled program will know
        raise UnsupportedError(
            f"{step!r} draws from the operating system's generator, which a compiled program cannot. "
            'Use engine="reference".'
        ) from error
