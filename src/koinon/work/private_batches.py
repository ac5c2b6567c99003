"""Which examples a private step takes, and what that costs: one object says both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from koinon import tree
from koinon.core.ranges import whole, whole_or_none
from koinon.core.types import Batch, Passes
from koinon.privacy.mechanism import Adjacency, Event
from koinon.tree import Array
from koinon.work.secret_noise import Draw, words

_OVERFLOW = 1e-12
"""The probability, for one step, that a Poisson batch does not fit."""


class PrivateBatches(Protocol):
    """A way of taking batches for which there is an analysis."""

    @property
    def sampling(self) -> str:
        """How examples come to be in a step, in words."""

    def passes(self) -> Passes:
        """Return how the engine is to cut the examples."""

    def expected(self, examples: Array) -> Array:
        """Return how many examples a step of a client with ``examples`` takes in the mean: what divides its sum."""

    def drawn(self, batch: Batch, secret: Array, key: Array, turn: Array) -> Batch:
        """Return the examples of one step."""

    def event(self, multiplier: float) -> Event:
        """Return one release, as it touches one example."""

    def releases(self) -> int:
        """Return how many such releases a round makes."""

    def failure(self) -> float:
        """Return the probability that a round is not what :meth:`event` says."""


@dataclass(frozen=True, kw_only=True)
class ShuffledBatches:
    """``epochs`` over a client's examples in batches of ``size``, as plain training takes them.

    An epoch uses an example once, so it is one release. Nothing is gained by sampling: who knows the run's seed knows
    the order. Data sets of the same size are adjacent that differ in one example, which moves a sum by twice the norm.
    ``size=None`` takes all the client's examples as one batch.
    """

    size: int | None = 32
    epochs: int = 1

    def __post_init__(self) -> None:
        whole_or_none(self, "size")
        whole(self, "epochs")

    @property
    def sampling(self) -> str:
        """How examples come to be in a step."""
        return f"every example in one batch of each of {self.epochs} epochs a round; nothing counted for the shuffling"

    def passes(self) -> Passes:
        """Return shuffled passes."""
        return Passes(self.size, self.epochs)

    def expected(self, examples: Array) -> Array:
        """Return the size of a batch."""
        return examples if self.size is None else tree.namespace(examples).minimum(examples, self.size)

    def drawn(self, batch: Batch, secret: Array, key: Array, turn: Array) -> Batch:
        """Return the batch as it was cut."""
        return batch

    def event(self, multiplier: float) -> Event:
        """Return a plain Gaussian with twice the norm."""
        return Event(multiplier / 2, 1.0, Adjacency.REPLACE_ONE)

    def releases(self) -> int:
        """Return the epochs."""
        return self.epochs

    def failure(self) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class PoissonBatches:
    """``steps`` batches, into each of which every example comes by a coin of its own, of probability ``1 / one_in``.

    The coins are secret, which is what amplification by sampling rests on; the accountant counts just this rate.
    ``steps=None`` takes ``one_in`` steps: one pass, in the mean. A step looks at all of a client's examples to draw a
    few, so it suits clients of hundreds or thousands. A batch has a fixed room that it exceeds with a
    probability below 1e-12; then its last examples are left out. Abadi et al., "Deep Learning with Differential
    Privacy", CCS 2016, section 3.
    """

    one_in: int = 10
    steps: int | None = None

    def __post_init__(self) -> None:
        whole(self, "one_in")
        whole_or_none(self, "steps")

    @property
    def sampling(self) -> str:
        """How examples come to be in a step."""
        return (
            f"each example of a client by its own coin, of probability 1/{self.one_in}, from the client's secret; "
            f"{self.releases()} steps a round"
        )

    def passes(self) -> Passes:
        """Return all the examples at every step."""
        return Passes(None, steps=self.releases(), shuffle=False)

    def expected(self, examples: Array) -> Array:
        """Return the share of the examples."""
        return examples * (1 / self.one_in)

    def drawn(self, batch: Batch, secret: Array, key: Array, turn: Array) -> Batch:
        """Return the examples whose coin fell, in a batch of fixed size."""
        xp, count = tree.namespace(batch.mask), len(batch.mask)
        coins = words(secret, key, turn, Draw.COINS, count)
        fallen = (batch.mask > 0) & (coins <= xp.uint32((1 << 32) // self.one_in - 1))
        chosen = xp.argsort(xp.where(fallen, 0, 1), stable=True)[: room(count, self.one_in)]
        x, y = (tree.map(lambda leaf: xp.asarray(leaf)[chosen], part) for part in (batch.x, batch.y))
        return Batch(x, y, fallen[chosen].astype(xp.float32), batch.key)

    def event(self, multiplier: float) -> Event:
        """Return a Gaussian over a Poisson sample."""
        return Event(multiplier, 1 / self.one_in, Adjacency.ADD_OR_REMOVE)

    def releases(self) -> int:
        """Return the steps."""
        return self.steps or self.one_in

    def failure(self) -> float:
        """Return the probability that a batch of the round does not fit."""
        return self.releases() * _OVERFLOW


def room(examples: int, one_in: int) -> int:
    """Return the least size that a batch drawn from ``examples`` exceeds with a probability below 1e-12."""
    if one_in == 1:
        return examples
    rate, above, size = 1 / one_in, 1.0, -1
    logarithm: Any = math.lgamma
    tail = [0.0] * (examples + 2)
    for k in range(examples, -1, -1):  # from the small end, so that the sum is exact where it matters
        ways = logarithm(examples + 1) - logarithm(k + 1) - logarithm(examples - k + 1)
        tail[k] = tail[k + 1] + math.exp(ways + k * math.log(rate) + (examples - k) * math.log1p(-rate))
    while above >= _OVERFLOW:
        size, above = size + 1, tail[size + 2]
    return max(1, size)
