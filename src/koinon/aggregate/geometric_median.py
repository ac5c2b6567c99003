"""The geometric median, by the smoothed Weiszfeld algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon.aggregate.coordinates import squared_distances, weighted_sum
from koinon.core.protocols import Needs
from koinon.core.ranges import positive, whole
from koinon.tree import Array, Tree

_CONVERGED = 1e-12


@dataclass(frozen=True)
class GeometricMedian:
    """The point with the least sum of distances to all updates.

    Each step weighs an update by ``1 / max(smoothing, its distance)`` and takes the weighted mean. All points on the way are
    weighted means, so distances between updates are all it takes: one pass over these, ``iterations`` at most over their
    weights, and one more over the updates. The distance is over all that clients send; they count the same, whatever their
    weights. These are rounded to float32, so that the last bits of a distance, which the number of threads may change, do
    not reach the model. Fewer than half of the clients cannot move it arbitrarily far. Pillutla, Kakade and
    Harchaoui, "Robust Aggregation for Federated Learning" (RFA), IEEE Transactions on Signal Processing 2022.
    """

    smoothing: float = 1e-6
    iterations: int = 1000

    needs: ClassVar[Needs] = Needs.EACH

    def __post_init__(self) -> None:
        positive(self, "smoothing")
        whole(self, "iterations")

    def values(self, cohort: int) -> int:
        """Return the cohort: every update is read."""
        return cohort

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the geometric median in float64 from updates ``[clients, ...]``."""
        shares = self._shares(squared_distances(total, exact=True)).astype(np.float32).astype(np.float64)
        return weighted_sum(total, shares / shares.sum())

    def _shares(self, distances: Array) -> Array:
        """Return the weights, which add up to 1, whose mean is the geometric median."""
        shares = np.full(len(distances), 1 / len(distances))
        for _ in range(self.iterations):
            to_each = distances @ shares
            from_mean = np.sqrt(np.maximum(to_each - shares @ to_each / 2, 0))
            pulls = 1 / np.maximum(from_mean, self.smoothing)
            before, shares = shares, pulls / pulls.sum()
            if np.abs(shares - before).max() < _CONVERGED:
                break
        return shares
