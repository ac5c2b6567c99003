"""Two small models with gradients by hand, in the array library of their arguments: every engine can run them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon import keys, metrics, tree
from koinon.core.protocols import Dataset
from koinon.core.types import Batch, Metrics, Variables
from koinon.errors import ModelError
from koinon.metrics import EXAMPLES, LOSS, Accuracy, MeanSquaredError
from koinon.tree import Array, Tree
from koinon.work.private import DROPPED


@dataclass(frozen=True)
class SoftmaxRegression:
    """Scores of ``classes`` classes that are linear in ``inputs`` numbers; the cross-entropy of labels ``[batch]``."""

    inputs: int = 5
    classes: int = 3
    compiled: bool = True

    def init(self, key: Array) -> Variables:
        """Return small weights and a zero bias."""
        weights = keys.uniform(key, (self.inputs, self.classes)) - np.float32(0.5)
        return {"params": {"weights": weights, "bias": np.zeros(self.classes, np.float32)}, "state": {}}

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        """Return the gradient of the masked mean cross-entropy."""
        scores, losses = self._losses(variables["params"], batch)
        xp, examples = tree.namespace(scores), batch.mask.sum()
        gap = (self._share(scores, xp) - self._hot(batch.y, xp)) * (batch.mask / xp.maximum(examples, xp.float32(1)))[
            :, None
        ]
        gradients = {"weights": batch.x.T @ gap, "bias": gap.sum(axis=0)}
        return gradients, variables["state"], {EXAMPLES: examples, LOSS: (losses * batch.mask).sum()}

    def clipped_gradient(self, variables: Variables, batch: Batch, norm: Array) -> tuple[Tree, Metrics]:
        """Return the sum of the examples' gradients, each of an L2 norm of at most ``norm``."""
        scores, losses = self._losses(variables["params"], batch)
        xp = tree.namespace(scores)
        gap = self._share(scores, xp) - self._hot(batch.y, xp)
        square = (gap * gap).sum(axis=1) * (1 + (batch.x * batch.x).sum(axis=1))
        good = (batch.mask > 0) & xp.isfinite(square) & xp.isfinite(losses)
        factor = xp.minimum(xp.float32(1), norm / xp.sqrt(xp.maximum(square, xp.float32(1e-30)))) * xp.float32(1 - 1e-5)
        gap = xp.where(good[:, None], gap * factor[:, None], xp.float32(0))
        gradients = {"weights": xp.where(good[:, None], batch.x, xp.float32(0)).T @ gap, "bias": gap.sum(axis=0)}
        used = good.astype(xp.float32).sum()
        loss = xp.where(good, losses, xp.float32(0)).sum()
        return gradients, {EXAMPLES: used, LOSS: loss, DROPPED: batch.mask.sum() - used}

    def evaluate(self, variables: Variables, batch: Batch) -> Metrics:
        """Return the sums of cross-entropy and accuracy."""
        scores, losses = self._losses(variables["params"], batch)
        right = Accuracy().sums(batch.y, scores, batch.mask)
        return {EXAMPLES: batch.mask.sum(), LOSS: (losses * batch.mask).sum(), "accuracy": right}

    def finish(self, sums: Metrics) -> dict[str, float]:
        """Return mean cross-entropy, and accuracy where it was counted."""
        return metrics.finish([Accuracy()] if "accuracy" in sums else [], sums)

    def check(self, data: Dataset) -> None:
        """Raise ModelError unless the examples are rows of ``inputs`` numbers."""
        _check_inputs(self, self.inputs, data)

    def computable_here(self) -> bool:
        """Return True: it needs no framework."""
        return True

    def trained(self, variables: Variables) -> Any:
        """Return the parameters."""
        return variables["params"]

    def describe(self) -> Any:
        """Return its kind and sizes."""
        return {"kind": "softmax regression", "inputs": self.inputs, "classes": self.classes}

    def _share(self, scores: Array, xp: Any) -> Array:
        share = xp.exp(scores - xp.max(scores, axis=1, keepdims=True))
        return share / share.sum(axis=1, keepdims=True)

    def _hot(self, y: Array, xp: Any) -> Array:
        return (y[:, None] == xp.arange(self.classes, dtype=xp.int32)[None, :]).astype(xp.float32)

    def _losses(self, params: Tree, batch: Batch) -> tuple[Array, Array]:
        scores = batch.x @ params["weights"] + params["bias"]
        xp = tree.namespace(scores)
        largest = xp.max(scores, axis=1, keepdims=True)
        total = largest[:, 0] + xp.log(xp.exp(scores - largest).sum(axis=1))
        return scores, total - (scores * self._hot(batch.y, xp)).sum(axis=1)


@dataclass(frozen=True)
class CentredRegression:
    """A linear model of centred inputs: by the batch's mean in training, by a running mean in judging.

    The running mean is state, as BatchNorm keeps it: trained on no gradient, averaged like parameters.
    """

    inputs: int = 5
    keep: float = 0.9
    compiled: bool = True

    def init(self, key: Array) -> Variables:
        """Return small weights, a zero bias, a zero running mean."""
        weights = keys.uniform(key, (self.inputs,)) - np.float32(0.5)
        params = {"weights": weights, "bias": np.zeros((), np.float32)}
        return {"params": params, "state": {"mean": np.zeros(self.inputs, np.float32)}}

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        """Return the gradient of the masked mean squared error, and the moved running mean."""
        mean = batch.x.mean(axis=0)
        gap = self._gap(variables["params"], batch, mean)
        xp, examples = tree.namespace(gap), batch.mask.sum()
        pull = gap * batch.mask * (2 / xp.maximum(examples, xp.float32(1)))
        gradients = {"weights": (batch.x - mean).T @ pull, "bias": pull.sum()}
        moved = self.keep * variables["state"]["mean"] + (1 - self.keep) * mean
        return gradients, {"mean": moved}, {EXAMPLES: examples, LOSS: (gap * gap * batch.mask).sum()}

    def evaluate(self, variables: Variables, batch: Batch) -> Metrics:
        """Return the sums of squared errors."""
        gap = self._gap(variables["params"], batch, variables["state"]["mean"])
        total = (gap * gap * batch.mask).sum()
        return {EXAMPLES: batch.mask.sum(), LOSS: total, "mse": total}

    def finish(self, sums: Metrics) -> dict[str, float]:
        """Return the mean squared error."""
        return metrics.finish([MeanSquaredError()] if "mse" in sums else [], sums)

    def check(self, data: Dataset) -> None:
        """Raise ModelError unless the examples are rows of ``inputs`` numbers."""
        _check_inputs(self, self.inputs, data)

    def computable_here(self) -> bool:
        """Return True: it needs no framework."""
        return True

    def trained(self, variables: Variables) -> Any:
        """Return parameters and running mean."""
        return variables

    def describe(self) -> Any:
        """Return its kind and size."""
        return {"kind": "centred regression", "inputs": self.inputs, "keep": self.keep}

    def _gap(self, params: Tree, batch: Batch, mean: Array) -> Array:
        return (batch.x - mean) @ params["weights"] + params["bias"] - batch.y


def _check_inputs(model: Any, inputs: int, data: Dataset) -> None:
    found = [leaf.shape[1:] for leaf in tree.leaves(data.x)]
    if found != [(inputs,)]:
        raise ModelError(f"{model!r} takes rows of {inputs} numbers; found rows of shape {found}.")
