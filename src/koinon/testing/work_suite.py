"""What every client's work must hold to."""

from __future__ import annotations

from typing import Any

import numpy as np

from koinon import exact, keys, tree
from koinon.core.protocols import ClientWork, Model, Server
from koinon.core.types import Metrics, Purpose, Task, Tasks, Update
from koinon.data.dataset import FederatedDataset
from koinon.engines.reference import batch_of
from koinon.metrics import EXAMPLES
from koinon.round.batches import cut
from koinon.server.average import Average
from koinon.testing.comparison import copied, same
from koinon.testing.models import SoftmaxRegression
from koinon.testing.samples import batch, classified
from koinon.tree import Tree


def check_work(work: ClientWork[Any], server: Server | None = None, *, model: Model | None = None) -> None:
    """Raise AssertionError unless ``work`` keeps the promises of a client's fold.

    It is pure; a carry keeps its shape; an update is float32 in the shape of the broadcast of ``server``
    (Average unless given), weighs a whole number, and moves the model down its loss.
    """
    model, server, data = model or SoftmaxRegression(), server or Average(), classified()
    broadcast = server.broadcast(server.init(model.init(keys.root(1))))
    state = work.init(broadcast)
    for round in (1, 2, 10, 1000):
        factor = work.learning_rate_factor(round)
        assert 0 <= factor < np.inf, f"{work!r}: the learning rate's factor of round {round} is {factor}"
    for client in (1, 3, 4):
        given, kept = copied(broadcast), copied(state)
        update, new, seen = _fold(work, model, data, client, broadcast, state)
        same(broadcast, given, f"the broadcast after {work!r}")
        same(state, kept, f"the client's state after {work!r}")
        again, renewed, _ = _fold(work, model, data, client, broadcast, state)
        same(again.value, update.value, f"{work!r} computing twice")
        same(renewed, new, f"the states {work!r} kept, computing twice")
        same(tree.zeros(new), tree.zeros(state), f"the shape of the state {work!r} keeps")
        same(tree.zeros(update.value), tree.zeros(broadcast), f"the shape of the update of {work!r}")
        _check_weight(work, update)
        assert float(seen[EXAMPLES]) >= 1, f"{work!r} must return the model's metric sums from every step"
    _check_descent(work, model, data, broadcast, state)


def _fold(
    work: ClientWork[Any], model: Model, data: FederatedDataset, client: int, broadcast: Tree, state: Tree
) -> tuple[Update, Tree, Metrics]:
    clients = np.array([client])
    key = keys.fold(keys.root(2), client)
    batches = cut(work.passes(), data, Purpose.TRAIN, Tasks(clients, key[None], np.ones(1, np.float32)))
    task = Task(key, np.float32(batches.examples[0]), np.float32(1), np.float32(3))
    carry, seen = work.begin(task, broadcast, state), dict[str, Any]()
    for j in range(int(batches.steps[0])):
        carry, sums = work.step(model, carry, batch_of(data, batches, 0, j, key))
        seen = {name: seen.get(name, 0) + value for name, value in sums.items()}
    update, new = work.finish(task, broadcast, carry)
    return update, tree.to_numpy(new), seen


def _check_weight(work: ClientWork[Any], update: Update) -> None:
    weight = float(update.weight)
    assert weight == round(weight), f"{work!r}: a weight is a whole number; found {weight}"
    assert 1 <= weight < exact.LARGEST_WEIGHT, f"{work!r}: a weight lies in [1, 2**24); found {weight}"


def _check_descent(work: ClientWork[Any], model: Model, data: FederatedDataset, broadcast: Tree, state: Tree) -> None:
    """A small step along the update must lower the loss of the client that sent it."""
    client = 3
    update, _, _ = _fold(work, model, data, client, broadcast, state)
    start, count = data.span(np.array(client), held_out=False)
    rows = data.order()[int(start) : int(start + count)]
    counted = batch(data, rows)
    here = {"params": broadcast["params"], "state": broadcast["state"]}
    there = {**here, "params": tree.map(lambda w, d: w + np.float32(0.1) * d, here["params"], update.value["params"])}
    before, after = (float(model.evaluate(at, counted)["loss"]) for at in (here, there))
    assert after < before, f"{work!r}: along its update the client's own loss rises from {before:.6g} to {after:.6g}"
