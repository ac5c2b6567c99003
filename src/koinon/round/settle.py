"""Add replies up exactly, merge chunks, and settle a round into an aggregate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from koinon import exact, tree
from koinon.core.algorithm import Algorithm
from koinon.core.types import Partial, Rows
from koinon.errors import DivergedError
from koinon.tree import Array, Tree


def absorb(total: Tree, value: Tree, weight: float, cohort: int) -> Array:
    """Add one client's update into ``total`` in place, unless it is refused; return the leaves' verdicts."""
    verdicts = np.asarray(exact.acceptable(value, np.float32(exact.limit(cohort, weight))), bool)
    if verdicts.all():
        exact.accumulate(total, value, int(weight))
    return verdicts


def merge(partials: Sequence[Partial]) -> Partial:
    """Return the round of all chunks, given in chunk order: integers add, rows and states line up."""
    first = partials[0]
    if len(partials) == 1:
        return first
    total = first.total
    for partial in partials[1:]:
        total = exact.merge(total, partial.total)
    names = sorted({name for partial in partials for name in partial.rows.metrics})
    metrics = {name: _column([p.rows for p in partials], name) for name in names}
    rows = Rows(
        np.concatenate([p.rows.clients for p in partials]),
        np.concatenate([p.rows.weights for p in partials]),
        metrics,
        np.concatenate([p.rows.accepted for p in partials]),
        first.rows.leaves,
    )
    states = tree.map(lambda *x: np.concatenate([np.asarray(y) for y in x]), *(p.states for p in partials))
    return Partial(total, sum(p.weight for p in partials), rows, states)


def _column(chunks: Sequence[Rows], name: str) -> Array:
    """Return one metric of all chunks; a chunk whose clients had no example to judge counts as zeros."""
    known = next(rows.metrics[name] for rows in chunks if name in rows.metrics)
    return np.concatenate(
        [rows.metrics.get(name, np.zeros((len(rows), *known.shape[1:]), known.dtype)) for rows in chunks]
    )


def settle(algorithm: Algorithm, partial: Partial, names: Sequence[str]) -> Tree:
    """Return the aggregate of a round in float64, or say that nobody is left."""
    if partial.weight == 0:
        refused = partial.rows.refused()
        shown = ", ".join(repr(names[i]) for i in list(refused)[:5])
        raise DivergedError(
            f"All {len(refused)} clients of the round were refused ({shown}{', ...' if len(refused) > 5 else ''}): "
            "their updates are not finite or too large to add. Lower the learning rate, scale the inputs, "
            "or put Clip into the channel."
        )
    return algorithm.aggregator.finish(partial.total, partial.weight)
