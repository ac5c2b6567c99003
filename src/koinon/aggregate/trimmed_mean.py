"""The coordinate-wise trimmed mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon.aggregate.coordinates import coordinatewise
from koinon.aggregate.enough import enough
from koinon.core.protocols import Needs
from koinon.core.ranges import share
from koinon.errors import ConfigurationError
from koinon.tree import Tree

_SLACK = 1e-9
"""A share of 0.29 of 100 clients is 29 of them, though 0.29 * 100 is a little less in floating point."""


@dataclass(frozen=True)
class TrimmedMean:
    """The mean of every coordinate without its largest and its smallest ``share * clients`` values (rounded down).

    ``share`` lies in [0, 0.5) and is the share of clients that may be dishonest. Every client counts the same, whatever
    its weight. So many clients cannot move a coordinate beyond what the others sent.
    Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
    """

    share: float = 0.1

    needs: ClassVar[Needs] = Needs.EACH

    def __post_init__(self) -> None:
        share(self, "share")
        if self.share >= 0.5:
            raise ConfigurationError(
                f"TrimmedMean.share must lie in [0, 0.5): nothing would be left; found {self.share!r}. Use Median()."
            )

    def values(self, cohort: int) -> int:
        """Return the cohort; refuse one so small that nothing would be trimmed."""
        least = max(3, math.ceil(1 / self.share - _SLACK)) if self.share else 1
        return enough(self, cohort, least, instead="With fewer it trims nobody: use a larger share, or Median().")

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the trimmed mean in float64 from updates ``[clients, ...]``."""
        clients = self.values(len(weight))
        trimmed = min(int(self.share * clients + _SLACK), (clients - 1) // 2)  # a share just below 0.5 leaves one
        return coordinatewise(total, lambda v: v[:, trimmed : clients - trimmed].mean(axis=1, dtype=np.float64))
