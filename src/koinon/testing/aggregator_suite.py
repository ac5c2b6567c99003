"""What every aggregator must hold to."""

from __future__ import annotations

import numpy as np

from koinon import exact, tree
from koinon.core.protocols import Aggregator, Needs
from koinon.testing.comparison import copied, same
from koinon.testing.samples import update
from koinon.tree import Tree


def check_aggregator(aggregator: Aggregator) -> None:
    """Raise AssertionError unless ``aggregator`` is pure, gives float64, and agrees with clients that agree."""
    assert isinstance(aggregator.needs, Needs), f"{aggregator!r}.needs must be a Needs; found {aggregator.needs!r}"
    for weights in ([1], [3, 4, 5], [1, 10**6]):
        value = update(len(weights))
        total = _total([value] * len(weights), weights)
        given = copied(total)
        aggregate = aggregator.finish(total, sum(weights))
        same(total, given, f"the total after {aggregator!r} finished it")
        same(aggregate, aggregator.finish(total, sum(weights)), f"{aggregator!r} finishing twice")
        for (name, found), wanted in zip(tree.items(aggregate), tree.leaves(value), strict=True):
            assert np.asarray(found).dtype == np.float64, f"{aggregator!r}: {name} is not float64"
            slack = 2.0**-30 + np.abs(wanted) * 2.0**-22
            assert np.all(np.abs(found - wanted) <= slack), f"{aggregator!r}: clients agree on {name} and it does not"


def _total(values: list[Tree], weights: list[int]) -> Tree:
    total = exact.zero(values[0])
    for value, weight in zip(values, weights, strict=True):
        exact.accumulate(total, value, weight)
    return total
