"""Which examples a private step takes, and what that costs: one object says both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from koinon import keys, tree
from koinon.core.ranges import whole, whole_or_none
from koinon.core.types import Batch, Metrics, Passes
from koinon.privacy.mechanism import Adjacency, Event
from koinon.tree import Array, Tree
from koinon.work.repeat import repeated
from koinon.work.secret_noise import Draw, words

Summed: TypeAlias = tuple[Tree, Metrics]
"""A sum of clipped gradients over some examples, and their metric sums."""


class PrivateBatches(Protocol):
    """A way of taking batches for which there is an analysis."""

    @property
    def sampling(self) -> str:
        """How examples come to be in a step, in words."""

    def passes(self) -> Passes:
        """Return how the engine is to cut the examples."""

    def expected(self, examples: Array) -> Array:
        """Return how many examples a step of a client with ``examples`` takes in the mean: what divides its sum."""

    def summed(
        self, clipped: Callable[[Batch], Summed], batch: Batch, secret: Array, key: Array, turn: Array
    ) -> Summed:
        """Return what ``clipped`` gives for the examples of one step, which are among those of ``batch``."""

    def event(self, multiplier: float) -> Event:
        """Return one release, as it touches one example."""

    def releases(self) -> int:
        """Return how many such releases a round makes."""


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

    def summed(
        self, clipped: Callable[[Batch], Summed], batch: Batch, secret: Array, key: Array, turn: Array
    ) -> Summed:
        """Return what the batch gives as it was cut."""
        return clipped(batch)

    def event(self, multiplier: float) -> Event:
        """Return a plain Gaussian with twice the norm."""
        return Event(multiplier / 2, 1.0, Adjacency.REPLACE_ONE)

    def releases(self) -> int:
        """Return the epochs."""
        return self.epochs


@dataclass(frozen=True, kw_only=True)
class PoissonBatches:
    """``steps`` batches, into each of which every example comes by a coin of its own, of probability ``1 / one_in``.

    The coins are secret, which is what amplification by sampling rests on; the accountant counts just this rate.
    ``steps=None`` takes ``one_in`` steps: one pass, in the mean. A step looks at all of a client's examples to draw a
    few, so it suits clients of hundreds or thousands. Abadi et al., "Deep Learning with Differential Privacy", CCS
    2016, section 3.
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

    def summed(
        self, clipped: Callable[[Batch], Summed], batch: Batch, secret: Array, key: Array, turn: Array
    ) -> Summed:
        """Return the sum over all examples whose coin fell: one piece nearly always, and as many as it takes."""
        xp, count = tree.namespace(batch.mask), len(batch.mask)
        coins = words(secret, key, turn, Draw.COINS, count)
        fallen = (batch.mask > 0) & (coins <= xp.uint32((1 << 32) // self.one_in - 1))
        size, drawn = at_once(count, self.one_in), xp.sum(fallen)
        order = xp.pad(xp.argsort(xp.where(fallen, 0, 1), stable=True), (0, -count % size)).reshape(-1, size)

        def piece(i: Array) -> Summed:
            x, y = (tree.map(lambda leaf: xp.asarray(leaf)[order[i]], part) for part in (batch.x, batch.y))
            counted = (i * size + xp.arange(size) < drawn).astype(xp.float32)
            return clipped(Batch(x, y, counted, keys.fold(batch.key, i)))

        def another(state: tuple[Array, Summed]) -> tuple[Array, Summed]:
            i, (total, sums) = state
            more, others = piece(i)
            return i + 1, (tree.add(total, more), tree.add(sums, others))

        zero = xp.zeros((), xp.int32)
        more = xp.maximum(drawn - 1, 0) // size
        return repeated(another, more, (zero + 1, piece(zero)), xp)[1]

    def event(self, multiplier: float) -> Event:
        """Return a Gaussian over a Poisson sample."""
        return Event(multiplier, 1 / self.one_in, Adjacency.ADD_OR_REMOVE)

    def releases(self) -> int:
        """Return the steps."""
        return self.steps or self.one_in


def at_once(examples: int, one_in: int) -> int:
    """Return how many examples a program is made for: two deviations above the mean of what is drawn."""
    mean = examples / one_in
    return min(examples, math.ceil(mean + 2 * math.sqrt(mean * (1 - 1 / one_in))))
