"""Central differential privacy: Gaussian noise on the exact sum, once a round, by the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koinon import tree
from koinon.channel.central import check_covered, check_range, noisy_wire, sensitivity, with_noise
from koinon.core.ranges import positive
from koinon.core.types import Context
from koinon.core.wire import Wire
from koinon.privacy.mechanism import Adjacency, Event, Noise, Trust
from koinon.privacy.sampling import Participation, Sampling
from koinon.tree import Tree


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
        after = noisy_wire(self, wire)
        check_range(self, self.multiplier * (wire.l2_bound or 0.0))
        return after

    def check_algorithm(self, algorithm: Any) -> None:
        """Refuse what the noise does not cover: single updates, later steps, draws that favour the fast."""
        check_covered(self, algorithm)

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
        """Return the event of a round that a client is in.

        A cohort of fixed size is counted without amplification, with twice the norm, and turns by no chance as they are.
        """
        if participation.sampling is Sampling.FIXED_SIZE:
            return Event(self.multiplier / 2, 1.0, Adjacency.REPLACE_ONE)
        rate = participation.rate if participation.sampling is Sampling.POISSON else 1.0
        return Event(self.multiplier, rate, Adjacency.ADD_OR_REMOVE)

    def release(self, total: Tree, bound: float, round: int, noise: Noise) -> Tree:
        """Return the int64 total with noise. ``bound`` is the clipping norm; its rounding is allowed for."""
        return with_noise(total, self.multiplier * sensitivity(bound, tree.size(total)), noise.normals(round))
