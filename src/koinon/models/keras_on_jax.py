"""Keras 3 models: the portable format in any process, computed on JAX without Keras' own training loop.

What travels is configuration and weights, never a Keras object: a model made in a TensorFlow process is
rebuilt in a worker whose Keras runs on JAX. The user's model, and the generators it was made with, stay as
they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from typing import Any

import numpy as np

from koinon import keys, tree
from koinon.core.protocols import Dataset
from koinon.core.types import Batch, Metrics, Variables
from koinon.errors import ModelError
from koinon.metrics import EXAMPLES, LOSS
from koinon.models.keras_checks import check_labels, resolve_metric
from koinon.models.keras_names import canonical, variable_names
from koinon.models.keras_on_jax_optimizers import optimizer_of
from koinon.models.keras_refusals import refuse_moved_state, refuse_unless_it_adds, refuse_what_would_be_lost
from koinon.models.keras_travel import cannot_travel, flat, other_inputs, own_objects, seeded
from koinon.tree import Array, Tree
from koinon.work.optimizers import Optimizer

_SEED_STATE = "seed_generator_state"


@dataclass(frozen=True, eq=False)
class KerasModel:
    """A compiled Keras model as configuration and weights. Make one with :meth:`of`.

    Parameters are the trainable variables, named by position, layer and variable: ``000_dense_kernel``.
    State are the other float variables (BatchNorm's statistics), averaged like parameters. Seeds are neither:
    every random layer draws from the batch's own key. ``weights=None`` is a model that was not built
    yet: it is initialised from the run's seed.
    """

    config: str
    weights: tuple[Array, ...] | None
    inputs: Tree  # one example's shape and dtype: (shape, dtype) in the nesting of x
    labels: Tree
    own: Mapping[str, Any] = field(default_factory=dict)  # the user's own classes and functions, by name
    compiled: bool = True

    @classmethod
    def of(cls, model: Any, data: Dataset) -> KerasModel:
        """Return ``model`` for examples like those of ``data``; reads it and changes nothing."""
        import keras

        if not model.compiled:
            raise ModelError(
                f"The Keras model {model.name!r} has no loss yet. Compile it first: "
                'model.compile(optimizer="sgd", loss=..., metrics=["accuracy"]).'
            )
        try:
            config = json.dumps(keras.saving.serialize_keras_object(model))
        except (NotImplementedError, TypeError, ValueError) as error:
            raise cannot_travel(model, error) from error
        weights = tuple(np.asarray(w) for w in model.get_weights()) if model.built and model.variables else None
        inputs, labels = (tree.map(lambda a: (a.shape[1:], a.dtype.name), part) for part in (data.x, data.y))
        record = cls(config, weights, inputs, labels, own_objects(model))
        try:
            record._built  # noqa: B018 - rebuilt once here, so that what cannot travel is said here
        except ModelError:
            raise
        except Exception as error:
            raise other_inputs(model, inputs) or cannot_travel(model, error) from error
        refuse_what_would_be_lost(record._built.model)
        return record

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields: what was rebuilt from them stays."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @cached_property
    def _built(self) -> _Built:
        return self._made(np.zeros(2, np.uint32))

    def init(self, key: Array) -> Variables:
        """Return the model's own weights, or weights drawn by ``key`` if it was never built."""
        if self.weights is not None:
            return self._built.variables()
        return self._made(key).variables()

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        """Return the gradients of the masked mean loss and the penalties, the new state, and sums."""
        result: tuple[Tree, Tree, Metrics] = self._run(_gradients, variables, batch)
        return result

    def clipped_gradient(self, variables: Variables, batch: Batch, norm: Array) -> tuple[Tree, Metrics]:
        """Return the sum of the examples' gradients, each of an L2 norm of at most ``norm``, and metric sums.

        An example's loss has the penalties in it. Raises CompositionError for BatchNormalization and all else that
        changes the model's state in training: what one example did to it would be sent as it is.
        """
        result: tuple[Tree, Metrics] = self._run(_clipped, variables, batch, norm)
        return result

    def evaluate(self, variables: Variables, batch: Batch) -> Metrics:
        """Return the sums of the loss and of every compiled metric."""
        sums: Metrics = self._run(_sums, variables, batch)
        return sums

    def finish(self, sums: Metrics) -> dict[str, float]:
        """Return the mean loss and every metric's figure."""
        examples = float(sums[EXAMPLES])
        figures = {LOSS: float(sums[LOSS]) / examples if examples else float("nan")}
        return {**figures, **self._built.finished(sums)}

    def check(self, data: Dataset) -> None:
        """Raise ModelError if outputs do not match labels, DataError for a label without an output."""
        check_labels(self._built.loss_objects, self._built.output_shapes, data)
        for name, (output, metric) in self._built.metrics.items():
            labels = data.y[output] if isinstance(data.y, Mapping) else data.y
            refuse_unless_it_adds(name, metric, labels[:8], self._built.output_shapes[output])

    def computable_here(self) -> bool:
        """Return whether this process's Keras runs on JAX."""
        import keras

        return bool(keras.config.backend() == "jax")

    def optimizer(self) -> Optimizer:
        """Return the optimiser the model was compiled with; each client begins each round with a fresh one."""
        shapes = tuple((name, tuple(v.shape)) for name, v in zip(*self._built.trainable, strict=True))
        return optimizer_of(self._built.model.optimizer, shapes)

    def trained(self, variables: Variables) -> Any:
        """Return a new Keras model with these variables, compiled like the one that was given."""
        built = self._made(np.zeros(2, np.uint32))
        built.assign(variables)
        built.model.optimizer.build(built.model.trainable_variables)  # so that a saved file is whole
        return built.model

    def describe(self) -> Any:
        """Return the architecture and what it was compiled with, without counters, weights or optimiser."""
        return {"kind": "keras", "config": canonical(json.loads(self.config)), "inputs": str(self.inputs)}

    def _run(self, function: Callable[..., Any], variables: Variables, batch: Batch, *more: Any) -> Any:
        """Call a function of the built model; for an engine that does not compile, a compiled batch at a time."""
        import jax

        arguments = {name: variables[name] for name in ("params", "state")}, batch.x, batch.y, batch.mask, batch.key
        if isinstance(batch.mask, jax.core.Tracer):
            return function(self._built, *arguments, *more)
        if function not in self._compiled:
            self._compiled[function] = jax.jit(partial(function, self._built))
        return self._compiled[function](*arguments, *more)

    @cached_property
    def _compiled(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        return {}

    def _made(self, key: Array) -> _Built:
        """Return a new model with its names, loss and metrics.

        It is made in a thread of its own. What Keras counts and JAX traces belongs to a thread: the user's names
        go on where they were, and a worker may make its copy while it compiles the round that asks for it.
        """
        import keras

        def make() -> _Built:
            with keras.saving.custom_object_scope(dict(self.own)):
                return _Built(self._rebuild(key), self.inputs, self.labels)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()

    def _rebuild(self, key: Array) -> Any:
        """Return a new model; Python's generator, which Keras draws seeds from, is put back afterwards."""
        import keras

        with seeded(int(key[0]) << 32 | int(key[1])):
            model = keras.saving.deserialize_keras_object(
                json.loads(self.config), custom_objects=dict(self.own), safe_mode=False
            )
            symbols = tree.map(lambda spec: keras.KerasTensor((None, *spec[0]), dtype=spec[1]), self.inputs)
            model(symbols)
        if self.weights is not None:
            model.set_weights(list(self.weights))
        return model


class _Built:
    """A rebuilt model with its loss, metrics and names."""

    def __init__(self, model: Any, inputs: Tree, labels: Tree) -> None:
        import keras

        self.model = model
        symbols = tree.map(lambda spec: keras.KerasTensor((1, *spec[0]), dtype=spec[1]), inputs)
        self.output_shapes = self._by_name(model(symbols), lambda x: tuple(x.shape[1:]))
        compiled = model.get_compile_config() or {}
        self.loss_objects = self._objects(compiled.get("loss"), _loss)
        weights = compiled.get("loss_weights")
        self._loss_weights = self._objects(weights, float) if weights else dict.fromkeys(self.loss_objects, 1.0)
        self.metrics = _metrics(compiled, self.output_shapes, labels)
        self.trainable = variable_names(model.trainable_variables), model.trainable_variables
        others = model.non_trainable_variables
        self._kept = [v for v in others if "float" in str(v.dtype) and not v.path.endswith(_SEED_STATE)]
        self._kept_names = variable_names(self._kept)

    def variables(self) -> Variables:
        """Return parameters and state as numpy arrays."""
        import keras

        parts = {"params": self.trainable, "state": (self._kept_names, self._kept)}
        return {
            part: {name: np.array(keras.ops.convert_to_numpy(v)) for name, v in zip(*both, strict=True)}
            for part, both in parts.items()
        }

    def assign(self, variables: Variables) -> None:
        """Write parameters and state into the model."""
        for part, names, values in (("params", *self.trainable), ("state", self._kept_names, self._kept)):
            for name, value in zip(names, values, strict=True):
                value.assign(variables[part][name])

    def call(self, params: Tree, state: Tree, batch: Batch, *, training: bool) -> tuple[Any, Tree, Any]:
        """Return outputs, new state and the sum of penalties (regularisers, ``add_loss``)."""
        names, _ = self.trainable
        kept = dict(zip((id(v) for v in self._kept), self._kept_names, strict=True))
        others = []
        for place, variable in enumerate(self.model.non_trainable_variables):
            if id(variable) in kept:
                others.append(state[kept[id(variable)]])
            elif variable.path.endswith(_SEED_STATE):
                others.append(keys.fold(batch.key, place).astype(variable.dtype))
            else:
                others.append(variable.value)
        outputs, new, penalties = self.model.stateless_call(
            [params[name] for name in names], others, batch.x, training=training, return_losses=True
        )
        pairs = zip(self.model.non_trainable_variables, new, strict=True)
        after = {kept[id(variable)]: value for variable, value in pairs if id(variable) in kept}
        return outputs, after, sum(penalties) if penalties else 0.0

    def losses(self, y: Tree, outputs: Any) -> Array:
        """Return one loss an example: the weighted sum over outputs, each averaged over its further axes.

        Of a sequence only the steps that its mask lets count; every example weighs the same, however long.
        """
        total: Any = 0.0
        predictions = self._by_name(outputs, lambda x: x)
        for name, loss in self.loss_objects.items():
            labels = y[name] if isinstance(y, Mapping) else y
            values = loss(labels.astype("float32"), predictions[name])  # as Keras does: -y of a uint8 is no -y
            values = values.reshape(values.shape[0], -1)
            counted = _counted(predictions[name], values.shape)
            mean = values.mean(axis=-1) if counted is None else (values * counted).sum(-1) / counted.sum(-1).clip(1.0)
            total = total + self._loss_weights[name] * mean
        return total

    def metric_sums(self, y: Tree, outputs: Any, mask: Array) -> dict[str, Array]:
        """Return every metric's variables after this batch alone: they add."""
        import jax.numpy as jnp

        sums: dict[str, Array] = {}
        predictions = self._by_name(outputs, lambda x: x)
        for name, (output, metric) in self.metrics.items():
            labels = y[output] if isinstance(y, Mapping) else y
            start = [jnp.zeros(v.shape, jnp.float32) for v in metric.variables]
            counted = _counted(predictions[output], labels.shape[:2])  # labels of a step may be a row
            weight = mask if counted is None else counted * mask[:, None]
            after = metric.stateless_update_state(start, labels, predictions[output], sample_weight=weight)
            sums.update({_sum_name(name, place): value for place, value in enumerate(after)})
        return sums

    def finished(self, sums: Metrics) -> dict[str, float]:
        """Return every metric's figure, where its sums are there."""
        import keras

        figures = {}
        for name, (_, metric) in self.metrics.items():
            if _sum_name(name, 0) not in sums:
                continue
            values = [np.asarray(sums[_sum_name(name, i)], np.float32) for i in range(len(metric.variables))]
            if type(metric).result is keras.metrics.Mean.result:
                figures[name] = float(values[0] / values[1]) if values[1] else float("nan")
            else:
                figures[name] = float(np.asarray(metric.stateless_result(values)))
        return figures

    def _by_name(self, outputs: Any, take: Callable[[Any], Any]) -> dict[str, Any]:
        """Return outputs by name; a model of one output calls it ``""``."""
        if isinstance(outputs, Mapping):
            return {str(name): take(value) for name, value in outputs.items()}
        if isinstance(outputs, list | tuple):
            return {name: take(value) for name, value in zip(self.model.output_names, outputs, strict=True)}
        return {"": take(outputs)}

    def _objects(self, given: Any, make: Callable[[Any], Any]) -> dict[str, Any]:
        names = list(self.output_shapes)
        if isinstance(given, Mapping) and "class_name" not in given:
            return {str(name): make(value) for name, value in given.items()}
        if isinstance(given, list | tuple):
            return {name: make(value) for name, value in zip(names, given, strict=True)}
        return {name: make(given) for name in names}


def _counted(prediction: Any, shape: tuple[int, ...]) -> Array | None:
    """Return 1 for the steps of a sequence that a mask of Keras lets count, if it has one of this shape."""
    from keras.src.backend.common.masking import get_keras_mask  # Keras keeps masks beside its tensors, not on them

    mask = get_keras_mask(prediction)
    return mask.astype("float32") if mask is not None and tuple(mask.shape) == tuple(shape) else None


def _gradients(
    built: _Built, variables: Variables, x: Tree, y: Tree, mask: Array, key: Array
) -> tuple[Tree, Tree, Metrics]:
    import jax

    batch, examples = Batch(x, y, mask, key), mask.sum()

    def mean_loss(params: Tree) -> tuple[Array, Tree]:
        outputs, state, penalty = built.call(params, variables["state"], batch, training=True)
        return (built.losses(y, outputs) * mask).sum() / examples.clip(1.0) + penalty, state

    (loss, state), gradients = jax.value_and_grad(mean_loss, has_aux=True)(variables["params"])
    return gradients, state, {EXAMPLES: examples, LOSS: loss * examples}


def _clipped(
    built: _Built, variables: Variables, x: Tree, y: Tree, mask: Array, key: Array, norm: Array
) -> tuple[Tree, Metrics]:
    from koinon.models.example_gradients_jax import clipped_gradient

    def loss(params: Tree, one: Batch) -> Array:
        outputs, state, penalty = built.call(params, variables["state"], one, training=True)
        refuse_moved_state(variables["state"], state)
        return built.losses(one.y, outputs)[0] + penalty

    return clipped_gradient(loss, variables["params"], Batch(x, y, mask, key), norm)


def _sums(built: _Built, variables: Variables, x: Tree, y: Tree, mask: Array, key: Array) -> Metrics:
    batch, examples = Batch(x, y, mask, key), mask.sum()
    outputs, _, penalty = built.call(variables["params"], variables["state"], batch, training=False)
    loss = (built.losses(y, outputs) * mask).sum() + penalty * examples
    return {EXAMPLES: examples, LOSS: loss, **built.metric_sums(y, outputs, mask)}


def _loss(given: Any) -> Callable[[Any, Any], Any]:
    """Return a loss as a function of labels and outputs that does not reduce over examples."""
    import keras

    loss = keras.losses.get(given)
    if loss is None:
        raise ModelError("The model was compiled without a loss. Give compile(loss=...).")
    if isinstance(loss, keras.losses.Loss):
        return loss.call  # type: ignore[no-any-return]

    def unreduced(y: Any, output: Any) -> Any:
        if y.ndim == output.ndim - 1 and output.shape[-1] == 1:
            y = y[..., None]
        return loss(y, output)

    unreduced.__name__ = getattr(loss, "__name__", type(loss).__name__)
    return unreduced


def _metrics(compiled: Mapping[str, Any], outputs: Mapping[str, Any], labels: Tree) -> dict[str, tuple[str, Any]]:
    """Return metric objects by the name they get in a history, with the output they look at."""
    given = [*_listed(compiled.get("metrics"), outputs), *_listed(compiled.get("weighted_metrics"), outputs)]
    found: dict[str, tuple[str, Any]] = {}
    for output, item in given:
        shape = labels[output] if isinstance(labels, Mapping) else labels
        metric = resolve_metric(item, shape[0], outputs[output])
        name = (f"{output}_{metric.name}" if output else metric.name).replace(tree.SEPARATOR, "_")
        if name in found:
            raise ModelError(f"Two metrics are called {name!r}. Give one of them another name=, or leave it out.")
        found[name] = (output, metric)
    return found


def _listed(given: Any, outputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if given is None:
        return []
    if isinstance(given, Mapping) and "class_name" not in given:
        return [(name, item) for name, items in given.items() for item in flat(items)]
    if len(outputs) > 1:
        return [(name, item) for name, items in zip(outputs, given, strict=True) for item in flat(items)]
    return [(next(iter(outputs)), item) for item in flat(given)]


def _sum_name(metric: str, place: int) -> str:
    return f"{metric} sum {place}"
