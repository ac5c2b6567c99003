"""What every aggregator must hold to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from koinon import keys, tree
from koinon.aggregate.rooted import Rooted
from koinon.algorithms.fedavg import fedavg
from koinon.core.protocols import Aggregator, Needs
from koinon.core.types import Job, Partial, Purpose, Rows, Tasks
from koinon.errors import CompositionError
from koinon.round.settle import Room, grouped, partial_of, settle
from koinon.testing.comparison import copied, near, same
from koinon.testing.samples import update
from koinon.tree import Array, Tree

_LARGEST = 1000
_MORE = 4


def check_aggregator(aggregator: Aggregator) -> None:
    """Raise AssertionError unless ``aggregator`` keeps the promises of one.

    It is pure and gives float64; clients that agree get what they agree on; the order of clients or groups does not
    matter: to the last bit where a round is settled, which sorts the clients, and nearly where it is given them as they are.
    """
    assert isinstance(aggregator.needs, Needs), f"{aggregator!r}.needs must be a Needs; found {aggregator.needs!r}"
    fewest = _fewest(aggregator)
    for clients in (fewest, fewest + _MORE):
        _check_agreement(aggregator, clients)
    values = [update(seed, 1 + seed % 3) for seed in range(fewest + _MORE)]
    weights = [1 + seed % 5 for seed in range(len(values))]
    whole, turned = np.arange(len(values)), np.roll(np.arange(len(values))[::-1], 1)
    first, again = (_settled(aggregator, values, weights, order) for order in (whole, turned))
    same(first, again, f"{aggregator!r} of the same clients in another order")
    _check_pure(aggregator, _partial(aggregator, values, weights, whole))


def _fewest(aggregator: Aggregator) -> int:
    """Return the smallest cohort that is taken; every larger one must be."""
    for clients in range(1, _LARGEST):
        try:
            given = aggregator.values(clients)
        except CompositionError:
            continue
        assert isinstance(given, int), f"{aggregator!r}.values({clients}) must be a whole number; found {given!r}"
        assert aggregator.needs is not Needs.EACH or given == clients, f"{aggregator!r} reads each of {clients} updates"
        assert aggregator.values(10 * clients) >= given, f"{aggregator!r} is given less of a larger cohort"
        return clients
    raise AssertionError(f"{aggregator!r} refuses all cohorts of less than {_LARGEST} clients")


def _check_agreement(aggregator: Aggregator, clients: int) -> None:
    for weights in ([1] * clients, [3 + i for i in range(clients)], [10**6] + [1] * (clients - 1)):
        value = update(clients)
        aggregate = _settled(aggregator, [value] * clients, weights, np.arange(clients))
        for (name, found), wanted in zip(tree.items(aggregate), tree.leaves(value), strict=True):
            assert np.asarray(found).dtype == np.float64, f"{aggregator!r}: {name} is not float64"
            slack = 2.0**-30 + np.abs(wanted) * 2.0**-22
            assert np.all(np.abs(found - wanted) <= slack), f"{aggregator!r}: clients agree on {name} and it does not"


def _check_pure(aggregator: Aggregator, partial: Partial) -> None:
    """Finish the same twice, and with its rows turned round."""
    total, weight = (
        (partial.each, partial.rows.weights) if aggregator.needs is Needs.EACH else (partial.total, partial.weight)
    )
    given = copied(total)
    aggregate = aggregator.finish(total, weight)
    same(total, given, f"the total after {aggregator!r} finished it")
    same(aggregate, aggregator.finish(total, weight), f"{aggregator!r} finishing twice")
    if aggregator.needs is not Needs.SUM:
        kept = 1 if isinstance(aggregator, Rooted) else 0
        turned = np.concatenate([np.arange(kept), np.arange(kept, len(weight))[::-1]])
        again = aggregator.finish(tree.map(lambda rows: rows[turned], total), weight[turned])
        near(again, aggregate, 1e-6, f"{aggregator!r} given its rows in another order")


def _settled(aggregator: Aggregator, values: list[Tree], weights: list[int], order: Array) -> Tree:
    names = [f"client-{i}" for i in range(len(values))]
    if isinstance(aggregator, Rooted):
        names[0] = aggregator.trusted
    partial = _partial(aggregator, values, weights, order)
    return settle(replace(fedavg(), aggregator=aggregator), partial, names)


def _partial(aggregator: Aggregator, values: list[Tree], weights: list[int], order: Array) -> Partial:
    """Return a round of clients that sent ``values``, which come in some order."""
    clients = np.arange(len(values))
    own = keys.fold(np.broadcast_to(keys.root(7), (len(values), 2)), clients.astype(np.uint32))
    tasks = Tasks(clients, own, np.ones(len(values), np.float32))
    job = grouped(aggregator, Job(Purpose.TRAIN, 1, len(values), {}, tasks)).chunk(order)
    room = Room(aggregator, job, values[0])
    came = np.array([weights[client] for client in order], np.float32)
    accepted = np.stack([room.absorb(i, values[client], weights[client]) for i, client in enumerate(order)])
    return partial_of(aggregator, job, room.kept, Rows(order, came, {}, accepted, tree.names(values[0])), {})
