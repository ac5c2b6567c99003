"""Multi-Krum: the mean of the updates that Krum likes best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon import tree
from koinon.aggregate.coordinates import squared_distances, weighted_sum
from koinon.aggregate.krum import enough_for_krum, krum_order
from koinon.core.protocols import Needs
from koinon.core.ranges import whole, whole_or_none
from koinon.errors import CompositionError
from koinon.tree import Tree


@dataclass(frozen=True)
class MultiKrum:
    """The mean of the ``chosen`` updates with the least Krum scores; ``clients - byzantine`` of them unless given.

    Between :class:`Krum`, which learns from one client a round, and the mean. Needs ``2 * byzantine + 3`` clients.
    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, section 5.
    """

    byzantine: int
    chosen: int | None = None

    needs: ClassVar[Needs] = Needs.EACH

    def __post_init__(self) -> None:
        whole(self, "byzantine", least=0)
        whole_or_none(self, "chosen")

    def values(self, cohort: int) -> int:
        """Return the cohort; refuse one too small, or one of which dishonest updates would have to be chosen."""
        enough_for_krum(self, self.byzantine, cohort)
        if self.chosen is not None and self.chosen > cohort - self.byzantine:
            raise CompositionError(
                f"{self!r} would choose {self.chosen} of {cohort} updates, of which {self.byzantine} may be dishonest. "
                f"Choose {cohort - self.byzantine} at most."
            )
        return cohort

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the mean of the chosen in float64 from updates ``[clients, ...]``."""
        clients = self.values(len(weight))
        count = clients - self.byzantine if self.chosen is None else self.chosen
        best = krum_order(squared_distances(total), self.byzantine)[:count]
        taken = np.zeros(clients)
        taken[best] = 1
        return tree.map(lambda x: x / count, weighted_sum(total, taken))
