"""A robust rule over the means of random groups: it reads sums of groups, never one client's update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from koinon import exact, tree
from koinon.aggregate.median import Median
from koinon.aggregate.rooted import Rooted
from koinon.core.protocols import Aggregator, Needs
from koinon.core.ranges import whole
from koinon.errors import CompositionError, ConfigurationError
from koinon.tree import Tree


@dataclass(frozen=True)
class Bucketed:
    """``inner``, a rule of single updates, over the weighted means of groups of at least ``size`` clients.

    Every round deals its cohort anew into ``cohort // size`` groups. One dishonest client spoils the mean of its
    group, so ``inner`` must stand as many spoilt groups as there may be dishonest clients. The means of groups differ less
    than clients do, and groups count the same. Only their exact sums are needed: where a secure sum hides the
    updates within a group, the rule still works. Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous
    Datasets via Bucketing", ICLR 2022.
    """

    size: int
    inner: Aggregator = field(default_factory=Median)

    needs: ClassVar[Needs] = Needs.GROUPS

    def __post_init__(self) -> None:
        whole(self, "size")
        if getattr(self.inner, "needs", None) is not Needs.EACH or isinstance(self.inner, Rooted):
            raise ConfigurationError(
                f"Bucketed.inner is a rule of single updates, all alike (Median, TrimmedMean, Krum); found {self.inner!r}."
            )

    def values(self, cohort: int) -> int:
        """Return the number of groups; refuse a cohort that makes too few for the rule within."""
        groups = cohort // self.size
        if not groups:
            raise CompositionError(f"{self!r} cannot make a group of {cohort} clients. Use a larger cohort.")
        try:
            return self.inner.values(groups)
        except CompositionError as error:
            raise CompositionError(
                f"{self!r} makes {groups} groups of {cohort} clients. {error} Smaller groups are more of them."
            ) from error

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the aggregate in float64 from totals ``[groups, ...]`` and weights ``[groups]``, none of them 0."""
        weights = np.asarray(weight, np.int64)
        units = weights * exact.SCALE
        means = tree.map(lambda t: np.asarray(t) / units.reshape(-1, *(1,) * (np.ndim(t) - 1)), total)
        return self.inner.finish(means, np.ones_like(weights))
