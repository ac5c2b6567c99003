"""What a Keras model asks for that koinon would not do: refused at the door, never dropped in silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from koinon.errors import CompositionError, UnsupportedError
from koinon.models.keras_travel import flat
from koinon.tree import Array, Tree

_METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics")


def refuse_what_would_be_lost(model: Any) -> None:
    """Raise UnsupportedError if ``model`` trains by rules that an average of models, or koinon's loop, would break."""
    import keras

    kind = type(model).__name__
    for method in _METHODS:
        if getattr(type(model), method) is not getattr(keras.Model, method):
            raise UnsupportedError(
                f"{kind} has a {method}() of its own, which koinon would not call. Put the computation into call() and "
                "the loss into compile(), or bring the whole loop: kn.OwnLoop."
            )
    for variable in model.trainable_variables:
        if getattr(variable, "constraint", None) is not None:
            raise UnsupportedError(
                f"{variable.path} has the constraint {type(variable.constraint).__name__}, which koinon does not apply: "
                "an average of models need not keep it. Drop it; a regulariser has a similar effect."
            )
    losses = list(model.loss.values()) if isinstance(model.loss, dict) else model.loss
    if any(getattr(loss, "reduction", None) == "sum" for loss in flat([losses])):
        raise UnsupportedError(
            f'A loss of {kind} has reduction="sum"; koinon minimises the mean over examples. '
            "Leave the reduction out, and multiply the learning rate by the batch size for the same steps."
        )
    if getattr(model.optimizer, "use_ema", False):
        raise UnsupportedError(
            f"The optimiser of {kind} has use_ema=True, but begins afresh in every round, so no average over steps "
            "would last. Leave it out; the server already averages models."
        )


def refuse_unless_it_adds(name: str, metric: Any, y: Array, output: tuple[int, ...]) -> None:
    """Raise UnsupportedError unless batches of ``metric`` add up and rows of weight 0 do not count.

    ``y`` are some labels, ``output`` is the shape of one example's output. Both laws are tried on outputs drawn
    at random: a figure over all clients is made from sums, and the last batch is filled with rows of weight 0.
    """
    half = (len(y) + 1) // 2
    outputs = np.random.default_rng(0).uniform(0.05, 0.95, (len(y), *output)).astype(np.float32)
    first, second, both = slice(0, half), slice(half, None), slice(0, None)

    def after(start: Sequence[Array], rows: slice, weight: float = 1.0) -> list[Array]:
        mask = np.where(np.arange(len(y)) < half, 1.0, weight).astype(np.float32)[rows]
        new = metric.stateless_update_state(list(start), y[rows], outputs[rows], sample_weight=mask)
        return [_numpy(value) for value in new]

    after(_zeros(metric), first)  # some metrics make their variables only now
    zeros = _zeros(metric)
    one, other = after(zeros, first), after(zeros, second)
    joined = after(one, second)
    trouble = None
    if not all(_alike(a + b, c) for a, b, c in zip(one, other, joined, strict=True)):
        trouble = "does not add up over batches, so no figure over all clients follows from each client's"
    elif not _alike(_figure(metric, one), _figure(metric, after(zeros, both, weight=0.0))):
        trouble = "counts rows whose sample_weight is 0, with which koinon fills a last batch"
    if trouble:
        raise UnsupportedError(
            f"The metric {name!r} ({type(metric).__name__}) {trouble}. Leave it out of compile(), and compute it "
            "afterwards with run.model.evaluate(...)."
        )


def refuse_moved_state(before: Tree, after: Tree) -> None:
    """Raise CompositionError if a step in training has changed any of the model's state."""
    moved = [name for name in sorted(before) if after[name] is not before[name]]
    if moved:
        raise CompositionError(
            f"The clipped gradient of one example was asked for, but in training the model changes {', '.join(moved)} "
            "with every batch, as BatchNormalization does: examples would mix, and their statistics would be sent without "
            "noise. Use GroupNormalization or LayerNormalization, or freeze the layer: trainable=False."
        )


def _zeros(metric: Any) -> list[Array]:
    return [np.zeros(v.shape, v.dtype) for v in metric.variables]


def _figure(metric: Any, values: Sequence[Array]) -> Array:
    import keras

    with keras.StatelessScope(list(zip(metric.variables, map(keras.ops.convert_to_tensor, values), strict=True))):
        return _numpy(metric.result())


def _numpy(value: Any) -> Array:
    import keras

    return keras.ops.convert_to_numpy(value)


def _alike(left: Array, right: Array) -> bool:
    return np.allclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True)
