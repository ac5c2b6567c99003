"""What must fit together before a Keras model trains: labels, outputs, loss, metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from koinon import tree
from koinon.core.protocols import Dataset
from koinon.errors import DataError, ModelError

_SPARSE = "sparse_categorical"


def resolve_metric(given: Any, label: tuple[int, ...], output: tuple[int, ...]) -> Any:
    """Return a Keras metric; ``"accuracy"`` is the one that fits labels and outputs, as Keras chooses it."""
    import keras

    word = str(given).lower() if isinstance(given, str) else ""
    sparse = len(label) < len(output) or (label[-1:] == (1,) and output[-1:] != (1,))
    if word in ("accuracy", "acc"):
        kinds = (
            keras.metrics.BinaryAccuracy,
            keras.metrics.SparseCategoricalAccuracy,
            keras.metrics.CategoricalAccuracy,
        )
        return kinds[0 if output[-1:] == (1,) or not output else 1 if sparse else 2](name=given)
    if word in ("crossentropy", "ce"):
        losses = (
            keras.metrics.BinaryCrossentropy,
            keras.metrics.SparseCategoricalCrossentropy,
            keras.metrics.CategoricalCrossentropy,
        )
        return losses[0 if output[-1:] == (1,) or not output else 1 if sparse else 2](name=given)
    metric = keras.metrics.get(given)
    if isinstance(metric, keras.metrics.Metric):
        return metric if not word else type(metric).from_config({**metric.get_config(), "name": given})
    return keras.metrics.MeanMetricWrapper(metric, name=word or getattr(metric, "__name__", "metric"))


def check_labels(
    losses: Mapping[str, Callable[..., Any]], outputs: Mapping[str, tuple[int, ...]], data: Dataset
) -> None:
    """Raise ModelError where outputs and labels have other shapes, DataError for a label outside the outputs."""
    for name, loss in losses.items():
        if name not in outputs:
            raise ModelError(f"The loss is for an output {name!r}, and the model's outputs are {sorted(outputs)}.")
        labels = data.y[name] if isinstance(data.y, Mapping) else data.y
        if isinstance(labels, Mapping):
            raise ModelError(f"The labels are {tree.names(labels)}, and the model has one output. Give one array.")
        called = _name_of(loss)
        label, output = labels.shape[1:], outputs[name]
        if _SPARSE in called:
            fits = label in (output[:-1], (*output[:-1], 1))
        else:
            fits = label in (output, output[:-1] if output[-1:] == (1,) else output) or not called
        if not fits:
            raise ModelError(
                f"The model gives outputs of shape {list(output)} an example, and the labels have shape {list(label)}; "
                f"the loss {called!r} compares them one by one. Change the last layer, the labels or the loss."
            )
        if _SPARSE in called:
            _check_range(labels, output[-1], data)


def _check_range(labels: Any, classes: int, data: Dataset) -> None:
    flat = labels.reshape(len(labels), -1)
    bad = np.nonzero(((flat < 0) | (flat >= classes)).any(axis=1))[0]
    if not len(bad):
        return
    every = np.arange(len(data))
    places = np.nonzero(np.isin(data.order(), bad))[0]
    if not len(places):
        return
    row = int(data.order()[places[0]])
    starts, _ = data.span(every, held_out=False)
    client = data.names[int(np.searchsorted(starts, places[0], side="right")) - 1]
    value = flat[row][(flat[row] < 0) | (flat[row] >= classes)][0]
    raise DataError(
        f"Client {client!r} has the label {value}, and the model has {classes} outputs, for labels 0 to {classes - 1} "
        f"({len(places)} such rows in all). Mend the labels, or give the last layer more outputs."
    )


def _name_of(loss: Callable[..., Any]) -> str:
    """Return the name of one of Keras' own losses in small letters, or nothing for a loss of the user's."""
    owner = getattr(loss, "__self__", None)
    if owner is None:
        return str(getattr(loss, "__name__", "")).lower()
    if not type(owner).__module__.startswith("keras"):
        return ""
    return str(getattr(getattr(owner, "fn", None), "__name__", type(owner).__name__)).lower()
