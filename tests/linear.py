"""Linear regression in plain numpy on three small clients: small enough to follow with a pencil."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import koinon as kn
from koinon import metrics
from koinon.core.types import Batch, Metrics, Variables
from koinon.metrics import EXAMPLES, LOSS
from koinon.tree import Array, Tree

WEIGHTS = np.float32([0.5, -1.0])


@dataclass(frozen=True)
class LinearModel:
    """``x @ w + b`` with half the squared error, begun at fixed weights; ``state`` counts the batches."""

    compiled: bool = False
    measures: tuple[Any, ...] = field(default=())

    def init(self, key: Array) -> Variables:
        return {"params": {"w": WEIGHTS.copy(), "b": np.zeros((), np.float32)}, "state": {"batches": np.float32(0)}}

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        gap = self._gap(variables, batch)
        pull = gap / batch.mask.sum()
        sums = {EXAMPLES: batch.mask.sum(), LOSS: 0.5 * (gap * gap).sum()}
        return (
            {"w": batch.x.T @ pull, "b": pull.sum()},
            {"batches": variables["state"]["batches"] + np.float32(1)},
            sums,
        )

    def evaluate(self, variables: Variables, batch: Batch) -> Metrics:
        gap = self._gap(variables, batch)
        sums = {metric.name: metric.sums(batch.y, gap + batch.y, batch.mask) for metric in self.measures}
        return {EXAMPLES: batch.mask.sum(), LOSS: 0.5 * (gap * gap).sum(), **sums}

    def finish(self, sums: Metrics) -> dict[str, float]:
        return metrics.finish([metric for metric in self.measures if metric.name in sums], sums)

    def check(self, data: Any) -> None:
        pass

    def computable_here(self) -> bool:
        return True

    def trained(self, variables: Variables) -> Any:
        return variables["params"]

    def describe(self) -> Any:
        return {"kind": "linear"}

    def _gap(self, variables: Variables, batch: Batch) -> Array:
        params = variables["params"]
        return (batch.x @ params["w"] + params["b"] - batch.y) * batch.mask


def clients(sizes: tuple[int, ...] = (2, 3, 5)) -> dict[str, tuple[Array, Array]]:
    """Return clients of these sizes, each with a rule somewhat of its own, in numbers that float32 holds exactly."""
    out = {}
    for i, size in enumerate(sizes):
        x = np.float32([[(3 * j + i) % 5 - 2, (2 * j + 3 * i) % 7 - 3] for j in range(size)]) / 2
        out[f"site-{i}"] = (x, x @ np.float32([1 + i / 2, -0.5]) + np.float32(i / 4))
    return out


def train(algorithm: kn.Algorithm, rounds: int = 3, **fields: Any) -> kn.Run:
    """Train on the clients whole, with the plain loop."""
    fields = {"clients": clients(), "holdout": 0.0, "engine": "reference", **fields}
    return kn.fit(
        LinearModel(), fields.pop("clients"), algorithm, stop=kn.Stop(rounds=rounds), progress=False, **fields
    )
