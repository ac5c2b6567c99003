"""The weighted mean: the aggregate of McMahan et al. 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from koinon import exact
from koinon.core.protocols import Needs
from koinon.tree import Tree


@dataclass(frozen=True)
class Mean:
    """``sum(w_k * x_k) / sum(w_k)``, from the exact integer sum; needs no single update."""

    needs: ClassVar[Needs] = Needs.SUM

    def values(self, cohort: int) -> int:
        """Return 1: any number of clients has one sum."""
        return 1

    def finish(self, total: Tree, weight: int) -> Tree:
        """Return the mean in float64."""
        return exact.mean(total, weight)
