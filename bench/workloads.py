"""The four workloads of the simulation benchmark: what is trained on whose data, for koinon and for a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import koinon as kn
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Model
from koinon.data.dataset import FederatedDataset, NumberedNames, aligned

RATE = 0.1


@dataclass(frozen=True)
class Workload:
    """One workload. ``stepwise`` says that its best plain loop calls one compiled step from Python."""

    model: Callable[[FederatedDataset], Model]
    data: FederatedDataset
    algorithm: Algorithm
    stepwise: bool = False


def workload(name: str, clients: int | None) -> Workload:
    """Return W1 (MLP), W2 (conv), W3 (LSTM) or W4 (logistic regression)."""
    makers = {"W1": perceptron, "W2": convolutions, "W3": recurrent, "W4": logistic}
    return makers[name](clients)


def perceptron(clients: int | None) -> Workload:
    """W1: 784-128-10, 1,000 clients of 60 examples, a cohort of 100, batch 10."""
    data = _data(np.full(clients or 1000, 60), (784,), 10)
    return Workload(lambda _: _layers((784, 128, 10)), data, _fedavg(100, 10))


def ragged(even: bool) -> Workload:
    """W1's model on 1,000 clients of log-normal sizes from 5 to 600, or on as many examples in equal parts."""
    draw = np.random.default_rng(1)
    sizes = np.clip(np.exp(draw.normal(3.6, 1.0, 1000)), 5, 600).astype(np.int64)
    if even:
        sizes = np.full(1000, round(sizes.mean()))
    return Workload(lambda _: _layers((784, 128, 10)), _data(sizes, (784,), 10), _fedavg(100, 10))


def logistic(clients: int | None) -> Workload:
    """W4: logistic regression of 60 inputs, 100,000 registered clients of 20 examples, a cohort of 1,000, batch 10."""
    data = _data(np.full(clients or 100_000, 20), (60,), 10)
    return Workload(lambda _: _layers((60, 10)), data, _fedavg(1000, 10))


def convolutions(clients: int | None) -> Workload:
    """W2: conv32-conv64-pool-fc128-fc10 on 32x32x3, 10 clients of 50 examples, batch 10."""
    data = _data(np.full(clients or 10, 50), (32, 32, 3), 10)

    def model(data: FederatedDataset) -> Model:
        from keras import Sequential, layers

        stack = [
            layers.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
        return _keras(Sequential(stack), data)

    return Workload(model, data, _fedavg(10, 10), stepwise=True)


def recurrent(clients: int | None) -> Workload:
    """W3: characters, embedding of 8, two LSTM of 256, vocabulary 86, sequences of 80; 4 clients of 32, batch 8."""
    count = 32 * (clients or 4)
    draw = np.random.default_rng(0)
    x = draw.integers(0, 86, (count, 80)).astype(np.int32)
    y = draw.integers(0, 86, count).astype(np.int32)

    def model(data: FederatedDataset) -> Model:
        from keras import Sequential, layers

        stack = [
            layers.Input((80,), dtype="int32"),
            layers.Embedding(86, 8),
            layers.LSTM(256, return_sequences=True),
            layers.LSTM(256),
            layers.Dense(86),
        ]
        return _keras(Sequential(stack), data)

    return Workload(model, _federated(x, y, np.full(clients or 4, 32)), _fedavg(clients or 4, 8))


def _keras(model: Any, data: FederatedDataset) -> Model:
    import keras

    from koinon.models.keras_on_jax import KerasModel

    model.compile(
        optimizer=keras.optimizers.SGD(RATE), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return KerasModel.of(model, data)


def _layers(sizes: tuple[int, ...]) -> Model:
    def init(key: Any) -> dict[str, Any]:
        params = {}
        for i, (rows, columns) in enumerate(pairwise(sizes)):
            weight = jax.random.normal(jax.random.fold_in(key, i), (rows, columns)) * rows**-0.5
            params[f"layer_{i}"] = {"weight": weight, "bias": jnp.zeros(columns)}
        return params

    def loss(params: dict[str, Any], x: Any, y: Any) -> Any:
        for i in range(len(sizes) - 1):
            x = x @ params[f"layer_{i}"]["weight"] + params[f"layer_{i}"]["bias"]
            x = jax.nn.relu(x) if i < len(sizes) - 2 else x
        scores = jax.nn.log_softmax(x)
        return -jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]

    return kn.FunctionModel(init, loss)


def _fedavg(cohort: int, batch: int) -> Algorithm:
    return kn.fedavg(kn.sgd(RATE), batch_size=batch, cohort=cohort)


def _data(sizes: np.ndarray, shape: tuple[int, ...], classes: int) -> FederatedDataset:
    draw = np.random.default_rng(0)
    count = int(sizes.sum())
    x = aligned((count, *shape), np.float32)
    draw.standard_normal(dtype=np.float32, out=x)
    return _federated(x, draw.integers(0, classes, count).astype(np.int32), sizes)


def _federated(x: np.ndarray, y: np.ndarray, sizes: np.ndarray) -> FederatedDataset:
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.arange(len(y), dtype=np.int32)
    return FederatedDataset(x, y, NumberedNames(len(sizes)), rows, offsets, np.zeros(len(sizes), np.int32))
