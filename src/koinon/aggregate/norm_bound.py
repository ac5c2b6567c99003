"""The mean of updates of bounded norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon import tree
from koinon.aggregate.coordinates import products, weighted_sum
from koinon.core.protocols import Needs
from koinon.core.ranges import positive
from koinon.tree import Tree


@dataclass(frozen=True)
class NormBound:
    """The mean of ``x_k * min(1, norm / |x_k|)``: one client moves it by ``2 * norm / clients`` at most.

    The norm is over all that a client sends. Every client counts the same, whatever its weight. The bound holds for
    clients that do not keep to the protocol, as the server applies it; ``Clip`` in the channel asks the clients to, and
    then sums are enough. Sun et al., "Can You Really Backdoor Federated Learning?", 2019, arXiv 1911.07963.
    """

    norm: float

    needs: ClassVar[Needs] = Needs.EACH

    def __post_init__(self) -> None:
        positive(self, "norm")

    def values(self, cohort: int) -> int:
        """Return the cohort: the norm of every update is looked at."""
        return cohort

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the mean in float64 from updates ``[clients, ...]``."""
        norms = np.sqrt(products(total))
        factors = self.norm / np.maximum(norms, self.norm)
        return tree.map(lambda x: x / len(norms), weighted_sum(total, factors))
