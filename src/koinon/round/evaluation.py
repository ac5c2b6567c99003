"""Evaluation is a round too: a piece of work that sends metric sums and no update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon.aggregate.mean import Mean
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Model
from koinon.core.types import Batch, Metrics, Passes, Rows, Task, Update, Variables
from koinon.metrics import EXAMPLES, lower_is_better
from koinon.round.batches import EVALUATION_BATCH
from koinon.sample.samplers import All
from koinon.server.average import Average
from koinon.tree import Tree


@dataclass(frozen=True)
class Evaluate:
    """Run the model over the examples in their own order; the update is empty."""

    def passes(self) -> Passes:
        """Return one pass in order."""
        return Passes(EVALUATION_BATCH, shuffle=False)

    def learning_rate_factor(self, round: int) -> float:
        """Return 1: nothing is learnt."""
        return 1.0

    def init(self, variables: Variables) -> Tree:
        """Return nothing."""
        return {}

    def begin(self, task: Task, broadcast: Tree, state: Tree) -> dict[str, Any]:
        """Return the model."""
        return {"params": broadcast["params"], "state": broadcast["state"]}

    def step(self, model: Model, carry: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Metrics]:
        """Return the sums of one batch."""
        return carry, model.evaluate(carry, batch)

    def finish(self, task: Task, broadcast: Tree, carry: dict[str, Any]) -> tuple[Update, Tree]:
        """Return an empty update."""
        return Update({}, np.float32(1)), {}


EVALUATION = Algorithm(name="evaluation", work=Evaluate(), server=Average(), aggregator=Mean(), sampler=All())


def federated(model: Model, rows: Rows, each: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Return every figure over all clients' examples together, and over ``each`` client: mean, worst, spread.

    Clients without held-out examples are left out. The spread is the standard deviation over clients.
    """
    sums = rows.sums()
    if not sums or not float(sums[EXAMPLES]):
        return {}
    figures = model.finish(sums)
    for name in list(figures):
        column = np.asarray([figure[name] for figure in each.values()])
        column = column[np.isfinite(column)]
        if not len(column):
            continue
        figures[f"{name}_mean"] = float(column.mean())
        figures[f"{name}_worst"] = float(column.max() if lower_is_better(name) else column.min())
        figures[f"{name}_spread"] = float(column.std())
    return figures


def client_figures(model: Model, rows: Rows) -> dict[int, dict[str, float]]:
    """Return each client's own figures and its number of examples, by position in the dataset; none if they are hidden."""
    if rows.pooled is not None:
        return {}
    return {
        int(client): {
            EXAMPLES: float(rows.metrics[EXAMPLES][i]),
            **model.finish({name: column[i] for name, column in rows.metrics.items()}),
        }
        for i, client in enumerate(rows.clients)
        if float(rows.metrics[EXAMPLES][i])
    }
