"""Central differential privacy: Gaussian noise on the exact sum, once a round, by the server."""

from __future__ import annotations

from dataclasses import dataclass

from koinon import tree
from koinon.channel.central import CentralNoise, sensitivity, with_noise
from koinon.core.ranges import positive
from koinon.privacy.mechanism import Adjacency, Event, Noise
from koinon.privacy.sampling import Participation, Sampling
from koinon.tree import Tree


@dataclass(frozen=True)
class GaussianNoise(CentralNoise):
    """Add noise of standard deviation ``multiplier`` times the clipping norm to the sum of a round's updates.

    The norm is what the steps before it promise; the sum is then divided by the expected size of the cohort, and every
    client weighs 1. The noise is rounded to the grid of the exact sum, 2**-30, so what is released lies on a grid that
    no data changes. It stands last in the channel. McMahan et al., "Learning Differentially Private Recurrent
    Language Models", ICLR 2018.
    """

    multiplier: float

    def __post_init__(self) -> None:
        positive(self, "multiplier")

    @property
    def deviation(self) -> float:
        """The noise's standard deviation over the norm of an update."""
        return self.multiplier

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
        return with_noise(total, self.deviation * sensitivity(bound, tree.size(total)), noise.normals(round))
