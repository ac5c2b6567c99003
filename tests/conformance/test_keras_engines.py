"""Keras models: one digest from every runtime, and the compiled engine beside the plain loop, family by family."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from keras import layers

import koinon as kn
from koinon import tree
from koinon.runtimes.environment import settings

pytestmark = pytest.mark.keras
HERE = Path(__file__).parent.parent
STOP = kn.Stop(rounds=2)
Clients = dict[str, tuple[np.ndarray, np.ndarray]]


def clients(shape: tuple[int, ...] = (6,), words: int = 0, count: int = 8) -> Clients:
    """Return ragged clients with labels 0, 1, 2; ``words`` gives whole numbers below it instead of reals."""
    draw = np.random.default_rng(1)
    out = {}
    for i in range(count):
        rows = 7 + 3 * i
        x = draw.integers(0, words, (rows, *shape)) if words else draw.normal(size=(rows, *shape))
        out[f"client-{i}"] = (x.astype(np.int32 if words else np.float32), draw.integers(0, 3, rows))
    return out


def compiled(*stack: Any, optimizer: Any = "sgd") -> Any:
    model = keras.Sequential([*stack, layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    return model


def fit(model: Any, data: Clients, algorithm: kn.Algorithm | None = None, **fields: Any) -> kn.Run:
    return kn.fit(model, data, algorithm, **{"stop": STOP, "progress": False, **fields})


FAMILIES: dict[str, tuple[Callable[[], Any], Clients, float]] = {
    # the model, the data, and the largest difference of any variable after two rounds of eight clients
    "dense": (lambda: compiled(layers.Dense(8, "relu")), clients(), 1e-6),
    "dense, adam": (lambda: compiled(layers.Dense(8, "relu"), optimizer="adam"), clients(), 1e-5),
    "batch normalisation": (lambda: compiled(layers.Dense(8), layers.BatchNormalization()), clients(), 1e-6),
    "dropout": (lambda: compiled(layers.Dense(8, "relu"), layers.Dropout(0.4)), clients(), 1e-6),
    "convolution": (lambda: compiled(layers.Conv2D(3, 3), layers.Flatten()), clients((6, 6, 1)), 1e-6),
    "lstm": (lambda: compiled(layers.LSTM(4)), clients((5, 2)), 1e-6),
    "embedding": (lambda: compiled(layers.Embedding(9, 4), layers.GlobalAveragePooling1D()), clients((5,), 9), 1e-6),
}


QUICK = ("dense", "batch normalisation")  # tests/unit/test_keras_models.py has a look at the others, too


@pytest.mark.parametrize(
    "family", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_the_compiled_engine_computes_what_the_plain_loop_computes(family: str) -> None:
    make, data, tolerance = FAMILIES[family]
    fast, plain = (fit(make(), data, engine=engine) for engine in ("jax", "reference"))
    wanted = dict(tree.items(plain.variables))
    for name, leaf in tree.items(fast.variables):
        np.testing.assert_allclose(leaf, wanted[name], rtol=0, atol=tolerance, err_msg=name)
    for name, value in plain.metrics.items():
        assert fast.metrics[name] == pytest.approx(value, abs=1e-5), name


def everything() -> Any:
    """Return a model with whatever could tell one process from another: seeds, statistics, own first weights."""
    keras.utils.set_random_seed(4)
    return compiled(layers.Input((6,)), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.4))


def quantised() -> kn.Algorithm:
    """Return FedAvg with clip and int8 in the channel: plain SGD hides a sum that depends on threads."""
    return kn.fedavg(kn.adam(0.01), epochs=2, batch_size=8, channel=(kn.Clip(1.0), kn.Quantise()))


def test_two_workers_give_the_digest_of_one_process() -> None:
    where: tuple[dict[str, Any], ...] = ({}, {"runtime": "processes", "workers": 2})
    runs = [fit(everything(), clients(), quantised(), **fields) for fields in where]
    assert len({run.digest for run in runs}) == 1
    assert len({tree.digest(run.variables["state"]) for run in runs}) == 1


def test_a_model_never_built_begins_the_same_in_every_process() -> None:
    digests = {
        fit(compiled(layers.LSTM(4)), clients((5, 2)), stop=kn.Stop(rounds=1), **where).digest
        for where in ({}, {"runtime": "processes", "workers": 2})
    }
    assert len(digests) == 1


SCRIPT = """
import keras, numpy as np
from conformance import test_keras_engines as here
model = here.everything()
model.predict(np.zeros((64, 6)), verbose=0)  # JAX has started, with all threads, and Keras has counted layers
print(here.fit(model, here.clients(), here.quantised()).digest)
"""


@pytest.mark.slow
def test_a_process_that_used_the_model_first_gets_the_same_bits() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in settings({})}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    assert out.stdout.split()[-1] == fit(everything(), clients(), quantised()).digest


def test_a_run_goes_on_in_a_process_that_never_initialised_the_model(tmp_path: Path) -> None:
    whole = fit(everything(), clients(), quantised())
    fit(everything(), clients(), quantised(), stop=kn.Stop(rounds=1), out=tmp_path)
    rest = fit(everything(), clients(), quantised(), out=tmp_path, runtime="processes", workers=1)
    assert rest.digest == whole.digest
