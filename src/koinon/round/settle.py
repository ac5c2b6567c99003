"""Add replies up exactly, merge chunks, and settle a round into an aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from koinon import exact, keys, tree
from koinon.aggregate.rooted import Rooted
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Aggregator, Needs
from koinon.core.types import Job, Partial, Rows
from koinon.errors import CompositionError, DivergedError
from koinon.privacy.sampling import AccountedSampler
from koinon.round.hidden import check_drawn
from koinon.tree import Array, Tree


def absorb(total: Tree, value: Tree, weight: float, cohort: int) -> Array:
    """Add one client's update into ``total`` in place, unless it is refused; return the leaves' verdicts."""
    verdicts = _verdicts(value, weight, cohort)
    if verdicts.all():
        exact.accumulate(total, value, int(weight))
    return verdicts


def _verdicts(value: Tree, weight: float, cohort: int) -> Array:
    return np.asarray(exact.acceptable(value, np.float32(exact.limit(cohort, weight))), bool)


def grouped(aggregator: Aggregator, job: Job) -> Job:
    """Return the job with its clients dealt into the groups that ``aggregator`` asks for, of nearly equal size.

    The clients' keys of the round shuffle them. To be called with the whole cohort, before it is cut into chunks;
    a job that has its groups is returned as it is. Raises CompositionError if the cohort is too small.
    """
    tasks = job.tasks
    if aggregator.needs is not Needs.GROUPS or tasks.groups is not None:
        return job
    words = keys.fold(tasks.keys, keys.Purpose.GROUPS.value)
    groups = np.empty(len(tasks), np.int64)
    groups[np.lexsort(words.T)] = np.arange(len(tasks)) % max(1, kept_rows(aggregator, job) or 0)
    return replace(job, tasks=replace(tasks, groups=groups))


def kept_rows(aggregator: Aggregator, job: Job) -> int | None:
    """Return how many rows of updates or sums are kept of the job's tasks, or None for one sum without rows."""
    if aggregator.needs is Needs.SUM:
        return None
    if aggregator.needs is Needs.EACH:
        return len(job.tasks)
    return aggregator.values(job.cohort) if job.cohort else 0


def room_bytes(aggregator: Aggregator, cohort: int, numbers: int) -> int:
    """Return how many bytes the updates of a cohort take where they are kept, each of so many ``numbers``."""
    return (4 if aggregator.needs is Needs.EACH else 8) * aggregator.values(cohort) * numbers


class Room:
    """Where the updates of a chunk go: one exact total, one of each group, or a row of float32 each."""

    def __init__(self, aggregator: Aggregator, job: Job, value: Tree) -> None:
        self._needs, self._job = aggregator.needs, job
        rows = kept_rows(aggregator, job)
        kind = np.float32 if aggregator.needs is Needs.EACH else np.int64
        self.kept = tree.map(lambda x: np.zeros(np.shape(x) if rows is None else (rows, *np.shape(x)), kind), value)

    def absorb(self, place: int, value: Tree, weight: float) -> Array:
        """Take the float32 update of the task at ``place`` in, unless it is refused; return the leaves' verdicts."""
        if self._needs is not Needs.EACH:
            groups = self._job.tasks.groups
            total = self.kept if groups is None else tree.map(lambda t: t[groups[place], ...], self.kept)
            return absorb(total, value, weight, self._job.cohort)
        verdicts = _verdicts(value, weight, self._job.cohort)
        if verdicts.all():
            tree.map(lambda rows, x: np.copyto(rows[place, ...], x), self.kept, value)
        return verdicts


def partial_of(aggregator: Aggregator, job: Job, kept: Tree, rows: Rows, states: Tree) -> Partial:
    """Return what is known of a chunk whose updates are ``kept`` as :class:`Room` keeps them."""
    weights = rows.weights.astype(np.int64)
    if aggregator.needs is Needs.EACH:
        return Partial({}, int(weights.sum()), rows, states, kept)
    if aggregator.needs is Needs.SUM:
        return Partial(kept, int(weights.sum()), rows, states)
    assert job.tasks.groups is not None, "groups are dealt before anything is computed"
    weight = np.zeros(kept_rows(aggregator, job) or 0, np.int64)
    np.add.at(weight, job.tasks.groups, weights)
    return Partial(kept, weight, rows, states)


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
    states, each = (
        tree.map(lambda *x: np.concatenate([np.asarray(y) for y in x]), *parts)
        for parts in ([p.states for p in partials], [p.each for p in partials])
    )
    return Partial(total, sum(p.weight for p in partials), rows, states, each)


def _column(chunks: Sequence[Rows], name: str) -> Array:
    """Return one metric of all chunks; a chunk whose clients had no example to judge counts as zeros."""
    known = next(rows.metrics[name] for rows in chunks if name in rows.metrics)
    return np.concatenate(
        [rows.metrics.get(name, np.zeros((len(rows), *known.shape[1:]), known.dtype)) for rows in chunks]
    )


def ready(algorithm: Algorithm, names: Sequence[str]) -> None:
    """Raise CompositionError unless a usual cohort of the clients ``names`` is what the aggregator needs.

    Raises ConfigurationError if none of them is ever large enough for a sum that hides its clients.
    """
    check_drawn(algorithm, len(names))
    sampler, aggregator = algorithm.sampler, algorithm.aggregator
    usual: float = sampler.largest(len(names))
    if isinstance(sampler, AccountedSampler):
        usual = min(usual, sampler.expected(len(names)))
    aggregator.values(int(usual))
    if isinstance(aggregator, Rooted):
        aggregator.place(names)
        if usual < len(names):
            raise CompositionError(
                f"{aggregator!r} needs {aggregator.trusted!r} in every round, but {sampler!r} draws {usual:g} of "
                f"{len(names)} clients. Use All()."
            )


def settle(algorithm: Algorithm, partial: Partial, names: Sequence[str]) -> Tree:
    """Return the aggregate of a round in float64.

    Raises DivergedError if nobody is left, or too few for the aggregator; CompositionError if too few were asked.
    """
    refused, aggregator = partial.rows.refused(), algorithm.aggregator
    shown = ", ".join(repr(names[i]) for i in list(refused)[:5]) + (", ..." if len(refused) > 5 else "")
    if not np.any(partial.weight):
        raise DivergedError(f"All {len(refused)} clients of the round were refused ({shown}): {_REFUSED}")
    total, weight = _given(aggregator, partial, names)
    try:
        return aggregator.finish(total, weight)
    except CompositionError as error:
        if not refused:
            raise
        raise DivergedError(f"{error} {len(refused)} more were refused ({shown}): {_REFUSED}") from error


_REFUSED = (
    "their updates are not finite or too large to add. Lower the learning rate, scale the inputs, "
    "or put Clip into the channel."
)


def _given(aggregator: Aggregator, partial: Partial, names: Sequence[str]) -> tuple[Tree, Any]:
    """Return what the aggregator needs of those who were accepted, clients in the order of the dataset."""
    if aggregator.needs is Needs.SUM:
        return partial.total, partial.weight
    if aggregator.needs is Needs.GROUPS:
        return _rows(partial.total, partial.weight, np.nonzero(partial.weight)[0])
    order = np.argsort(partial.rows.clients, kind="stable")
    chosen = order[partial.rows.weights[order] > 0]
    if isinstance(aggregator, Rooted):
        at_front = partial.rows.clients[chosen] == aggregator.place(names)
        chosen = np.concatenate([chosen[at_front], chosen[~at_front]])
        if not at_front.any():
            raise CompositionError(
                f"{aggregator!r} measures every update by that of {aggregator.trusted!r}, which this round does not have. "
                "It must take part in every round (All()) with an update that can be added."
            )
    return _rows(partial.each, partial.rows.weights.astype(np.int64), chosen)


def _rows(table: Tree, weight: Array, chosen: Array) -> tuple[Tree, Array]:
    if np.array_equal(chosen, np.arange(len(weight))):  # a copy of a whole cohort may be large
        return table, weight
    return tree.map(lambda rows: np.asarray(rows)[chosen], table), weight[chosen]
