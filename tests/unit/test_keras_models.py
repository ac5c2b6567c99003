"""Keras models as users write them: they train, they stay as they were, and what is wrong is said."""

import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras import layers

import koinon as kn
from koinon import keys, tree
from koinon.errors import DataError, ModelError, UnsupportedError
from koinon.models.keras_on_jax import KerasModel
from koinon.runtimes.environment import settings

pytestmark = pytest.mark.keras
STOP = kn.Stop(rounds=2)
Clients = dict[str, tuple[np.ndarray, np.ndarray]]


def clients(shape: tuple[int, ...] = (5,), classes: int = 0, words: int = 0, count: int = 3) -> Clients:
    draw = np.random.default_rng(0)
    out = {}
    for i in range(count):
        rows = 12 + 5 * i
        x = draw.integers(0, words, (rows, *shape)) if words else draw.normal(size=(rows, *shape))
        y = draw.integers(0, classes, rows) if classes else draw.normal(size=rows)
        out[f"client-{i}"] = (x, y)
    return out


def hello() -> Any:
    model = keras.Sequential([layers.Dense(10, "relu"), layers.Dense(1)])
    model.compile(loss="mse", optimizer="adam")
    return model


def normalised() -> Any:
    stack = [
        layers.Input((5,)),
        layers.Dense(8, kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dropout(0.3),
        layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential(stack)
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        metrics=["accuracy"],
    )
    return model


def convolution() -> Any:
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer="rmsprop", metrics=["acc"])
    return model


def recurrent() -> Any:
    model = keras.Sequential([layers.Embedding(20, 4), layers.LSTM(6), layers.Dense(3, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy", optimizer="sgd", metrics=["accuracy"])
    return model


def binary() -> Any:
    model = keras.Sequential([layers.Dense(1, activation="sigmoid")])
    model.compile(loss="binary_crossentropy", optimizer="adamw", metrics=["accuracy", keras.metrics.AUC(name="auc")])
    return model


FAMILIES: dict[str, tuple[Callable[[], Any], Clients, float]] = {
    # model, data, the largest difference between the engines' parameters after two rounds
    "dense": (hello, clients(), 1e-6),
    "batch normalisation and dropout": (normalised, clients(classes=3), 1e-5),
    "convolution": (convolution, clients((8, 8, 1), classes=3), 1e-5),
    "lstm and embedding": (recurrent, clients((7,), classes=3, words=20), 1e-6),
    "binary": (binary, {n: (x, (y > 0).astype(float)) for n, (x, y) in clients().items()}, 1e-6),
}


def fit(model: Any, data: Clients, **fields: Any) -> kn.Run:
    return kn.fit(model, data, **{"stop": STOP, "progress": False, **fields})


@pytest.mark.parametrize("family", FAMILIES)
def test_engines_agree_and_the_users_model_stays_as_it_was(family: str) -> None:
    make, data, tolerance = FAMILIES[family]
    keras.utils.set_random_seed(3)
    model = make()
    built = model.built
    before = [w.copy() for w in model.get_weights()] if built else None
    state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    compiled = fit(model, data)
    looped = fit(model, data, engine="reference")
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert model.built == built
    if before is not None:
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    other = dict(tree.items(looped.variables))
    for name, leaf in tree.items(compiled.variables):
        np.testing.assert_allclose(leaf, other[name], atol=tolerance, err_msg=name)
    assert set(looped.metrics) == set(compiled.metrics)


def test_two_lines_and_a_model_that_was_never_built() -> None:
    model = keras.Sequential([layers.Dense(10, "relu"), layers.Dense(1)])
    model.compile(loss="mse", optimizer="adam")
    run = kn.fit(model, clients(), stop=kn.Stop(rounds=10), progress=False)
    assert run.history[-1].figures["train_loss"] < run.history[0].figures["train_loss"]
    assert not model.built
    assert run.model.predict(np.zeros((2, 5)), verbose=0).shape == (2, 1)
    assert fit(hello(), clients(), seed=1).digest == fit(hello(), clients(), seed=1).digest
    assert fit(hello(), clients(), seed=1).digest != fit(hello(), clients(), seed=2).digest


def test_a_built_model_begins_with_its_own_weights() -> None:
    model = normalised()
    run = fit(model, clients(classes=3), stop=kn.Stop(rounds=0))
    for old, new in zip(model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_one_round_of_one_client_is_what_keras_computes() -> None:
    data = clients(count=1)
    x, y = data["client-0"]
    model = keras.Sequential([layers.Input((5,)), layers.Dense(3, "tanh"), layers.Dense(1)])
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.05))
    algorithm = kn.fedavg(kn.sgd(0.05), batch_size=None)
    run = fit(model, data, algorithm=algorithm, stop=kn.Stop(rounds=3), holdout=0.0)
    model.fit(x, y, batch_size=len(x), epochs=3, shuffle=False, verbose=0)
    for mine, own in zip(run.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, own, atol=2e-6)


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adagrad"])
def test_the_compiled_optimiser_is_the_clients(name: str) -> None:
    data = clients(count=1)
    x, y = data["client-0"]
    model = keras.Sequential([layers.Input((5,)), layers.Dense(1)])
    model.compile(loss="mse", optimizer=name)
    run = fit(model, data, stop=kn.Stop(rounds=1), holdout=0.0)
    model.fit(x, y, batch_size=32, epochs=1, shuffle=False, verbose=0)
    for mine, own in zip(run.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, own, atol=2e-6)


def test_metrics_are_those_of_keras() -> None:
    data = {name: (x, (y > 0).astype(np.float32)) for name, (x, y) in clients().items()}
    model = keras.Sequential([layers.Input((5,)), layers.Dense(1, activation="sigmoid")])
    kinds = ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision")]
    model.compile(loss="binary_crossentropy", optimizer="sgd", metrics=kinds)
    run = fit(model, data, stop=kn.Stop(rounds=1), test=data["client-0"])
    own = run.model.evaluate(*data["client-0"], verbose=0, return_dict=True)
    for name in ("loss", "accuracy", "auc", "precision"):
        assert run.metrics[f"test_{name}"] == pytest.approx(float(own[name]), abs=1e-5)


def test_dropout_differs_by_client_and_repeats_by_seed() -> None:
    model = keras.Sequential([layers.Input((5,)), layers.Dropout(0.5), layers.Dense(1)])
    model.compile(loss="mse", optimizer="sgd")
    x, y = clients()["client-0"]
    run = fit(model, {"a": (x, y), "b": (x, y)}, stop=kn.Stop(rounds=1), holdout=0.0)
    rows = run.history[0].rows
    assert rows is not None
    assert rows.metrics["loss"][0] != rows.metrics["loss"][1], "two clients, two masks"
    again = fit(model, {"a": (x, y), "b": (x, y)}, stop=kn.Stop(rounds=1), holdout=0.0)
    assert again.digest == run.digest


def test_names_and_description_do_not_depend_on_what_was_made_before() -> None:
    first = KerasModel.of(normalised(), kn.federate(clients(classes=3)))
    second = KerasModel.of(normalised(), kn.federate(clients(classes=3)))
    assert list(first.init(keys.root(0))["params"]) == list(second.init(keys.root(0))["params"])
    assert json.dumps(first.describe()) == json.dumps(second.describe())
    assert json.dumps(KerasModel.of(hello(), kn.federate(clients())).describe()) != json.dumps(first.describe())


def test_a_record_travels_without_keras_objects() -> None:
    record = KerasModel.of(recurrent(), kn.federate(clients((7,), classes=3, words=20)))
    record.init(keys.root(0))
    back = pickle.loads(pickle.dumps(record))
    assert tree.digest(back.init(keys.root(4))) == tree.digest(record.init(keys.root(4)))


def test_a_saved_model_is_loaded_by_keras(tmp_path: Any) -> None:
    run = fit(hello(), clients())
    loaded = keras.models.load_model(run.save(tmp_path / "model.keras"))
    for mine, own in zip(run.model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, own)


class Doubling(layers.Layer):
    """A layer of the user's own that can be rebuilt."""

    def __init__(self, factor: float = 2.0, **rest: Any) -> None:
        super().__init__(**rest)
        self.factor = factor

    def call(self, x: Any) -> Any:
        return x * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


class Stuck(layers.Layer):
    """A layer that does not say how it was made."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table

    def call(self, x: Any) -> Any:
        return x + self.table


def with_layer(layer: Any) -> Any:
    model = keras.Sequential([layers.Input((5,)), layer, layers.Dense(1)])
    model.compile(loss="mse", optimizer="sgd")
    return model


def test_a_layer_of_ones_own_travels() -> None:
    assert fit(with_layer(Doubling(3.0)), clients(), runtime="processes", workers=1).rounds == 2


def test_a_layer_that_cannot_travel_is_named() -> None:
    with pytest.raises(ModelError, match=r"cannot be rebuilt.*Its own layers are Stuck.*get_config"):
        fit(with_layer(Stuck(np.float32(1.0))), clients())


def test_a_model_for_other_examples_says_so() -> None:
    data = {name: (x[:, :3], y) for name, (x, y) in clients().items()}
    with pytest.raises(ModelError, match=r"takes examples of shape \[5\], and those it is given here have shape \[3\]"):
        fit(with_layer(layers.Dense(2)), data)


def test_a_model_that_was_not_compiled() -> None:
    with pytest.raises(ModelError, match="has no loss yet. Compile it first"):
        fit(keras.Sequential([layers.Dense(1)]), clients())


def test_a_label_outside_the_outputs_names_its_client() -> None:
    data = clients(classes=3)
    data["client-1"][1][4] = 7
    with pytest.raises(DataError, match="Client 'client-1' has the label 7, and the model has 3 outputs"):
        fit(normalised(), data)


def test_outputs_that_do_not_match_the_labels() -> None:
    data = {name: (x, np.zeros((len(x), 4))) for name, (x, _) in clients().items()}
    with pytest.raises(ModelError, match=r"outputs of shape \[1\] an example, and the labels have shape \[4\]"):
        fit(hello(), data)


def test_a_metric_that_makes_its_variables_late() -> None:
    model = one_layer(layer=layers.Dense(1), metrics=[keras.metrics.R2Score(name="r2")])
    run = fit(model, clients(), stop=kn.Stop(rounds=1), test=clients()["client-2"])
    own = run.model.evaluate(*clients()["client-2"], verbose=0, return_dict=True)
    assert run.metrics["test_r2"] == pytest.approx(float(own["r2"]), abs=1e-5)


class OwnStep(keras.Sequential):
    """A model that trains itself."""

    def train_step(self, *given: Any) -> Any:
        raise AssertionError("never called")


class Latest(keras.metrics.Metric):
    """A figure of the last batch alone."""

    def __init__(self, name: str = "latest", **rest: Any) -> None:
        super().__init__(name=name, **rest)
        self.seen = self.add_variable((), "zeros", name="seen")

    def update_state(self, y: Any, output: Any, sample_weight: Any = None) -> None:
        self.seen.assign(keras.ops.mean(output))

    def result(self) -> Any:
        return self.seen.value


class Unweighted(Latest):
    """A sum that counts every row."""

    def update_state(self, y: Any, output: Any, sample_weight: Any = None) -> None:
        self.seen.assign_add(keras.ops.sum(output))


def one_layer(kind: Any = keras.Sequential, layer: Any = None, **compiled: Any) -> Any:
    model = kind([layers.Dense(1) if layer is None else layer])
    model.compile(**{"loss": "mse", "optimizer": "sgd", **compiled})
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: one_layer(OwnStep), r"OwnStep has a train_step\(\) of its own.*kn\.OwnLoop"),
        (lambda: one_layer(layer=layers.Dense(1, kernel_constraint="non_neg")), "has the constraint NonNeg"),
        (lambda: one_layer(loss=keras.losses.MeanSquaredError(reduction="sum")), 'reduction="sum"'),
        (lambda: one_layer(optimizer=keras.optimizers.SGD(use_ema=True)), "use_ema=True"),
        (lambda: one_layer(metrics=[Latest()]), r"'latest' \(Latest\) does not add up"),
        (lambda: one_layer(metrics=[Unweighted()]), r"'latest' \(Unweighted\) counts rows"),
    ],
    ids=["train_step", "constraint", "sum", "ema", "a metric that does not add", "a metric without weights"],
)
def test_what_koinon_would_drop_in_silence_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        fit(make(), clients())


def test_steps_that_a_mask_hides_do_not_count() -> None:
    draw = np.random.default_rng(0)
    x, y = (draw.integers(*limits, (12, 7), np.int32) for limits in ((1, 6), (0, 3)))
    x[:, 4:] = 0
    stack = [layers.Input((7,), dtype="int32"), layers.Embedding(6, 4, mask_zero=True)]
    model = keras.Sequential([*stack, layers.LSTM(5, return_sequences=True), layers.Dense(3, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy", optimizer="sgd", metrics=["accuracy"])
    run = fit(model, {"one": (x, y)}, stop=kn.Stop(rounds=1), holdout=0.0, test=(x, y))
    own = run.model.evaluate(x, y, verbose=0, return_dict=True)
    assert run.metrics["test_loss"] == pytest.approx(own["loss"], abs=1e-5)
    assert run.metrics["test_accuracy"] == pytest.approx(own["accuracy"], abs=1e-5)


def test_a_metric_is_called_what_the_user_called_it() -> None:
    model = keras.Sequential([layers.Dense(1)])
    model.compile(loss="mse", optimizer="adam", metrics=["mae"])
    assert "mae" in fit(model, clients(), stop=kn.Stop(rounds=1)).metrics


def test_two_metrics_of_one_name_are_refused() -> None:
    model = keras.Sequential([layers.Dense(1)])
    model.compile(loss="mse", optimizer="adam", metrics=["mae", keras.metrics.MeanSquaredError(name="mae")])
    with pytest.raises(ModelError, match="Two metrics are called 'mae'"):
        fit(model, clients())


TENSORFLOW = """
import tensorflow as tf, numpy as np, koinon as kn
draw = np.random.default_rng(0)
clients = {f"c{i}": (draw.normal(size=(20, 5)), draw.integers(0, 3, 20)) for i in range(2)}
model = tf.keras.Sequential([tf.keras.layers.Input((5,)), tf.keras.layers.Dense(3, activation="softmax")])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
before = model.get_weights()
run = kn.fit(model, clients, stop=kn.Stop(rounds=2), progress=False)
assert all((a == b).all() for a, b in zip(before, model.get_weights()))
assert run.model.predict(np.zeros((1, 5)), verbose=0).shape == (1, 3)
assert tf.keras.backend.backend() == "tensorflow"
print(run.rounds)
"""


@pytest.mark.tensorflow
def test_a_model_made_in_a_tensorflow_process() -> None:
    pytest.importorskip("tensorflow")
    environment = {name: value for name, value in os.environ.items() if name not in settings({})}
    environment.update(KERAS_BACKEND="tensorflow", PYTHONPATH=os.pathsep.join(sys.path))
    out = subprocess.run(
        [sys.executable, "-c", TENSORFLOW], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert out.returncode == 0, out.stderr[-3000:]
    assert out.stdout.strip() == "2"
