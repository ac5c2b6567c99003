"""Bulyan: Krum chooses, then a trimmed mean around the median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon import tree
from koinon.aggregate.coordinates import coordinatewise, squared_distances
from koinon.aggregate.enough import enough
from koinon.aggregate.krum import krum_order
from koinon.aggregate.median import median_of_sorted
from koinon.core.protocols import Needs
from koinon.core.ranges import whole
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Bulyan:
    """Of ``clients - 2 * byzantine`` updates chosen by Krum one after the other, the mean of the values near the median.

    Of every coordinate the ``clients - 4 * byzantine`` values nearest to the median of the chosen count. What Krum lets
    pass, a large change of few coordinates, is thus bounded too. Near the end, when fewer clients are left than Krum
    is defined for, it looks at one neighbour. Needs ``4 * byzantine + 3`` clients, which count the same.
    El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018.
    """

    byzantine: int

    needs: ClassVar[Needs] = Needs.EACH

    def __post_init__(self) -> None:
        whole(self, "byzantine", least=0)

    def values(self, cohort: int) -> int:
        """Return the cohort; refuse one of which the dishonest may be too large a part."""
        advice = f"Draw a larger cohort, or byzantine={(cohort - 3) // 4} at most." if cohort > 2 else "Use Median()."
        return enough(self, cohort, 4 * self.byzantine + 3, instead=advice)

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the aggregate in float64 from updates ``[clients, ...]``."""
        kept = self.values(len(weight)) - 4 * self.byzantine
        chosen = self._chosen(squared_distances(total))
        selected = tree.map(lambda rows: np.asarray(rows)[chosen], total)
        return coordinatewise(selected, lambda values: _nearest_to_median(values, kept))

    def _chosen(self, distances: Array) -> Array:
        """Return in ascending order the clients that Krum takes, each from those whom it has not taken yet."""
        left = np.arange(len(distances))
        while len(left) > 2 * self.byzantine:
            left = np.delete(left, int(krum_order(distances[np.ix_(left, left)], self.byzantine)[0]))
        return np.setdiff1d(np.arange(len(distances)), left)


def _nearest_to_median(values: Array, kept: int) -> Array:
    """Return the mean of the ``kept`` values nearest to the median, which are neighbours in sorted order."""
    median = median_of_sorted(values)[:, None]
    last = values.shape[1] - kept + 1
    reach = np.maximum(median - values[:, :last], values[:, kept - 1 :] - median)
    first, least = np.argmin(reach, axis=1), reach.min(axis=1)[:, None]
    if np.count_nonzero(reach == least) > len(first):  # equally wide ones: none may leave out who is nearer still
        first = np.maximum(first, np.count_nonzero(values - median < least, axis=1) - kept)
    window = first[:, None] + np.arange(kept)
    mean: Array = np.take_along_axis(values, window, axis=1).mean(axis=1, dtype=np.float64)
    return mean
