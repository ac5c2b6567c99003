"""Krum: the update nearest to its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon import tree
from koinon.aggregate.coordinates import squared_distances
from koinon.aggregate.enough import enough
from koinon.core.protocols import Needs
from koinon.core.ranges import whole
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Krum:
    """The one update whose ``clients - byzantine - 2`` nearest others are nearest: the least sum of squared distances.

    The distance is over all that clients send. Every client counts the same, whatever its weight. Needs ``2 * byzantine + 3`` clients. Blanchard et al., "Machine Learning with Adversaries:
    Byzantine Tolerant Gradient Descent", NeurIPS 2017.
    """

    byzantine: int

    needs: ClassVar[Needs] = Needs.EACH

    def __post_init__(self) -> None:
        whole(self, "byzantine", least=0)

    def values(self, cohort: int) -> int:
        """Return the cohort; refuse one of which the dishonest may be too large a part."""
        return enough_for_krum(self, self.byzantine, cohort)

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the chosen update in float64 from updates ``[clients, ...]``."""
        self.values(len(weight))
        best = int(krum_order(squared_distances(total), self.byzantine)[0])
        return tree.map(lambda rows: np.asarray(rows)[best].astype(np.float64), total)


def enough_for_krum(aggregator: Any, byzantine: int, found: int) -> int:
    """Return ``found``, or raise CompositionError where it is below ``2 * byzantine + 3``."""
    most = (found - 3) // 2
    advice = f", or byzantine={most} at most" if most >= 0 else " or Median()"
    return enough(aggregator, found, 2 * byzantine + 3, instead=f"Draw a larger cohort{advice}.")


def krum_order(distances: Array, byzantine: int) -> Array:
    """Return the clients from the best Krum score to the worst, from their squared distances ``[clients, clients]``.

    A score is the sum over the nearest ``clients - byzantine - 2`` others, at least one. With one neighbour the two
    nearest clients tie: then the sum over all others decides, and at last the order of the clients.
    """
    others = np.sort(distances + np.diag(np.full(len(distances), np.inf)), axis=1)
    scores = others[:, : max(1, len(distances) - byzantine - 2)].sum(axis=1)
    return np.lexsort((distances.sum(axis=1), scores))
