"""A model as plain functions: ``init(key) -> params`` and ``loss(params, x, y) -> [batch]``, in JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from koinon import metrics, tree
from koinon.core.protocols import Dataset
from koinon.core.types import Batch, Metrics, Variables
from koinon.errors import ClientError, KoinonError, ModelError
from koinon.metrics import EXAMPLES, LOSS, Metric
from koinon.models.describe import describe_function
from koinon.models.example_gradients_jax import clipped_gradient
from koinon.tree import Array, Tree


@dataclass(frozen=True, eq=False)
class FunctionModel:
    """A model written as functions.

    ``init(key)`` returns a nested dict of float32 arrays from a raw key (uint32[2], as ``jax.random``
    takes it). ``loss(params, x, y)`` returns one loss per example, shape ``[batch]``. ``predict(params, x)``
    is needed if ``metrics`` are asked for.
    """

    init_params: Callable[[Array], Tree]
    loss: Callable[[Tree, Array, Array], Array]
    predict: Callable[[Tree, Array], Array] | None = None
    metrics: tuple[Metric, ...] = ()
    compiled: bool = True

    def __post_init__(self) -> None:
        if self.metrics and self.predict is None:
            raise ModelError(
                f"Metrics ({', '.join(m.name for m in self.metrics)}) are figures of predictions. "
                "Give predict=, a function (params, x) -> outputs."
            )

    def init(self, key: Array) -> Variables:
        """Return the first parameters as numpy float32."""
        params = self.init_params(jnp.asarray(key))
        return {"params": tree.map(lambda x: np.asarray(x, np.float32), params), "state": {}}

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        """Return the gradient of the masked mean loss, and its sum."""
        examples = jnp.sum(batch.mask)

        def mean_loss(params: Tree) -> tuple[Array, Array]:
            total = jnp.sum(self._losses(params, batch) * batch.mask)
            return total / jnp.maximum(examples, 1.0), total

        gradients, total = jax.grad(mean_loss, has_aux=True)(variables["params"])
        return gradients, variables["state"], {EXAMPLES: examples, LOSS: total}

    def clipped_gradient(self, variables: Variables, batch: Batch, norm: Array) -> tuple[Tree, Metrics]:
        """Return the sum of the examples' gradients, each of an L2 norm of at most ``norm``, and metric sums."""
        arguments = variables["params"], batch.x, batch.y, batch.mask, batch.key, norm
        if isinstance(batch.mask, jax.core.Tracer):
            return _clipped(self, *arguments)
        result: tuple[Tree, Metrics] = _compiled_clipped(self, *arguments)  # one by one, its operations take seconds
        return result

    def evaluate(self, variables: Variables, batch: Batch) -> Metrics:
        """Return the sums of loss and metrics."""
        sums = {
            EXAMPLES: jnp.sum(batch.mask),
            LOSS: jnp.sum(self._losses(variables["params"], batch) * batch.mask),
        }
        if self.predict is not None and self.metrics:
            output = self.predict(variables["params"], batch.x)
            sums.update({metric.name: metric.sums(batch.y, output, batch.mask) for metric in self.metrics})
        return sums

    def finish(self, sums: Metrics) -> dict[str, float]:
        """Return the figures of ``sums``."""
        present = [metric for metric in self.metrics if metric.name in sums]
        return metrics.finish(present, sums)

    def check(self, data: Dataset) -> None:
        """Raise ModelError unless ``loss`` gives one value per example of ``data``, ClientError if it raises on them."""
        x, y = (tree.map(lambda a: a[:2], part) for part in (data.x, data.y))
        rows = len(tree.leaves(y)[0])
        batch = Batch(x, y, np.ones(rows, np.float32), np.zeros(2, np.uint32))
        shapes = jax.eval_shape(self.init_params, jnp.zeros(2, jnp.uint32))
        try:
            jax.eval_shape(lambda params: self._losses(params, batch), shapes)
        except KoinonError:
            raise
        except Exception as error:
            name, first = data.names[0], str(error).partition("\n")[0].rstrip(".")
            raise ClientError(
                f"The model's loss cannot be computed on examples of {name!r}, with {_of_a_row(x)} as x and {_of_a_row(y)} as y: "
                f"{type(error).__name__}: {first}. The traceback above names the line: is the "
                "data as the model expects it?",
                client=name,
                stage="check",
            ) from error

    def computable_here(self) -> bool:
        """Return True: JAX is imported."""
        return True

    def trained(self, variables: Variables) -> Any:
        """Return the parameters: functions have no other place for them."""
        return variables["params"]

    def describe(self) -> Any:
        """Return the functions by name and source."""
        return {
            "kind": "functions",
            "init": describe_function(self.init_params),
            "loss": describe_function(self.loss),
            "predict": None if self.predict is None else describe_function(self.predict),
            "metrics": [repr(metric) for metric in self.metrics],
        }

    def _losses(self, params: Tree, batch: Batch) -> Array:
        losses = jnp.asarray(self.loss(params, jax.tree.map(jnp.asarray, batch.x), jax.tree.map(jnp.asarray, batch.y)))
        if losses.shape != batch.mask.shape:
            raise ModelError(
                f"loss(params, x, y) must return one loss per example, shape {list(batch.mask.shape)}; "
                f"found shape {list(losses.shape)}. Leave the mean over the batch to koinon."
            )
        return losses


def _of_a_row(examples: Tree) -> str:
    """Return the types and shapes of one row's arrays, for people."""
    return ", ".join(f"{np.asarray(leaf).dtype}{list(np.shape(leaf)[1:])}" for leaf in tree.leaves(examples))


def _clipped(
    model: FunctionModel, params: Tree, x: Tree, y: Tree, mask: Array, key: Array, norm: Array
) -> tuple[Tree, Metrics]:
    return clipped_gradient(lambda params, one: model._losses(params, one)[0], params, Batch(x, y, mask, key), norm)


_compiled_clipped = jax.jit(_clipped, static_argnums=0)
