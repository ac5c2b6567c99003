"""The coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon.aggregate.coordinates import coordinatewise
from koinon.core.protocols import Needs
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Median:
    """The median of every coordinate over the clients; of an even number, the mean of the two in the middle.

    Every client counts the same, whatever its weight. Fewer than half of the clients cannot move a coordinate beyond what
    the others sent. Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
    """

    needs: ClassVar[Needs] = Needs.EACH

    def values(self, cohort: int) -> int:
        """Return the cohort: every update is read."""
        return cohort

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the median in float64 from updates ``[clients, ...]``."""
        return coordinatewise(total, median_of_sorted)


def median_of_sorted(values: Array) -> Array:
    """Return the medians, float64 ``[coordinates]``, of values sorted along the second axis."""
    low, high = values[:, (values.shape[1] - 1) // 2], values[:, values.shape[1] // 2]
    return np.add(low, high, dtype=np.float64) / 2
