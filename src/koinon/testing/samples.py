"""Small ragged data for the conformance suites: the same numbers on every machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from koinon import tree
from koinon.core.types import Batch
from koinon.data.dataset import FederatedDataset, federate
from koinon.tree import Array, Tree

INPUTS = 5
CLASSES = 3
SIZES = (3, 17, 8, 30, 1, 12, 5)


def classified(*, diverging: int | None = None) -> FederatedDataset:
    """Return ragged clients with labels of three classes; the ``diverging`` one has inputs near 1e30."""
    return _federated(lambda scores: scores.argmax(axis=1).astype(np.int32), diverging)


def measured(*, diverging: int | None = None) -> FederatedDataset:
    """Return ragged clients with one real target a row."""
    return _federated(lambda scores: scores[:, 0].astype(np.float32), diverging)


def update(seed: int, size: float = 1.0) -> Tree:
    """Return a float32 update of norm about ``size``, with a matrix, a vector, a scalar and an empty branch."""
    draw = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"weights": (4, 3), "bias": (3,), "scale": ()}
    leaves = {name: np.asarray(draw.normal(size=shape)) for name, shape in shapes.items()}
    share = size / float(tree.sum_of_squares(leaves)) ** 0.5
    return {"params": {name: np.asarray(leaf * share, np.float32) for name, leaf in leaves.items()}, "state": {}}


def batch(data: FederatedDataset, rows: Array, *, counted: int | None = None) -> Batch:
    """Return rows of ``data`` as a batch of which the first ``counted`` rows count (all unless given)."""
    mask = (np.arange(len(rows)) < (len(rows) if counted is None else counted)).astype(np.float32)
    return Batch(data.x[rows], data.y[rows], mask, np.array([1, 2], np.uint32))


def _federated(labels: Callable[[Array], Array], diverging: int | None) -> FederatedDataset:
    draw = np.random.default_rng(20)
    rule = draw.normal(size=(INPUTS, CLASSES))
    clients = {}
    for i, size in enumerate(SIZES):
        x = (draw.normal(size=(size, INPUTS)) + draw.normal(size=INPUTS)).astype(np.float32)
        y = labels(x @ rule + 0.3 * draw.normal(size=(size, CLASSES)))
        clients[f"client-{i}"] = (x * np.float32(1e30) if i == diverging else x, y)
    return federate(clients, holdout=0.2)
