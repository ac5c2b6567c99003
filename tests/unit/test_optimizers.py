"""The client's optimisers: those of Keras step by step, one text for every array library, ranges kept."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

import koinon as kn
from koinon import tree
from koinon.errors import ConfigurationError
from koinon.work.optimizers import Adam, Momentum, Optimizer, Sgd

OPTIMIZERS: dict[str, tuple[Optimizer, str, dict]] = {
    "sgd": (kn.sgd(0.1), "SGD", {"learning_rate": 0.1}),
    "momentum": (kn.momentum(0.1, 0.8), "SGD", {"learning_rate": 0.1, "momentum": 0.8}),
    "nesterov": (kn.sgd(0.1, 0.8, nesterov=True), "SGD", {"learning_rate": 0.1, "momentum": 0.8, "nesterov": True}),
    "adam": (kn.adam(0.05), "Adam", {"learning_rate": 0.05}),
}


def walk(optimizer: Optimizer, apply: Callable = lambda step: step, steps: int = 5) -> list[np.ndarray]:
    """Return the parameters after every step down a bent valley."""
    params = {"w": np.float32([1.0, -2.0, 0.5])}
    state, step, out = optimizer.init(params), apply(optimizer.apply), []
    for _ in range(steps):
        gradients = tree.map(lambda w: np.float32([1, 4, 9]) * np.asarray(w), params)
        params, state = step(params, gradients, state, np.float32(1))
        out.append(np.asarray(params["w"]))
    return out


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compiled_and_plain_steps_agree_in_float32(name: str) -> None:
    optimizer = OPTIMIZERS[name][0]
    plain, compiled = walk(optimizer), walk(optimizer, jax.jit)
    assert {w.dtype for w in (*plain, *compiled)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(plain, compiled, rtol=2e-6, atol=1e-6)


@pytest.mark.keras
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_steps_are_those_of_keras(name: str) -> None:
    keras = pytest.importorskip("keras")
    ours, kind, fields = OPTIMIZERS[name]
    theirs = getattr(keras.optimizers, kind)(**fields)
    variable, expected = keras.Variable(np.float32([1.0, -2.0, 0.5])), []
    for _ in range(5):
        theirs.apply([np.float32([1, 4, 9]) * np.asarray(variable.value)], [variable])
        expected.append(np.asarray(variable.value))
    np.testing.assert_allclose(walk(ours), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_on_the_learning_rate_is_a_learning_rate(name: str) -> None:
    optimizer = OPTIMIZERS[name][0]
    half = kn.replace(optimizer, learning_rate=optimizer.learning_rate / 2)
    params, gradients = {"w": np.float32([1.0])}, {"w": np.float32([3.0])}
    by_factor, by_rate = (
        each.apply(params, gradients, each.init(params), np.float32(rate))[0]["w"]
        for each, rate in ((optimizer, 0.5), (half, 1.0))
    )
    np.testing.assert_allclose(by_factor, by_rate, rtol=1e-6)


def test_a_step_changes_neither_parameters_nor_state() -> None:
    for optimizer, _, _ in OPTIMIZERS.values():
        params, gradients = {"w": np.float32([1.0])}, {"w": np.float32([3.0])}
        state = optimizer.init(params)
        before = tree.digest({"params": params, "state": state})
        first, second = (optimizer.apply(params, gradients, state, np.float32(1)) for _ in range(2))
        assert tree.digest({"params": params, "state": state}) == before
        assert tree.digest(first[0]) == tree.digest(second[0])


def test_fields_are_plain_numbers() -> None:
    for optimizer in (Sgd(1), Sgd(np.float32(1)), Sgd(np.int64(1))):
        assert type(optimizer.learning_rate) is float
        assert optimizer == Sgd(1.0)
    assert type(kn.fedavg(epochs=np.int32(2)).work.epochs) is int


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: kn.sgd(0), r"Sgd.learning_rate must be a number above 0; found 0"),
        (lambda: kn.sgd("0.1"), r"found '0.1'"),
        (lambda: kn.sgd(True), r"found True"),
        (lambda: kn.sgd(float("inf")), r"found inf"),
        (lambda: Momentum(0.1, 1.0), r"Momentum.momentum must be a number in \[0, 1\); found 1.0"),
        (lambda: kn.sgd(0.1, -0.5), r"Momentum.momentum .* found -0.5"),
        (lambda: Adam(epsilon=0), r"Adam.epsilon must be a number above 0"),
        (lambda: kn.adam(beta_2=1), r"Adam.beta_2 must be a number in \[0, 1\)"),
        (lambda: kn.Exponential(0), r"Exponential.decay must be a number above 0"),
        (lambda: kn.Exponential(0.5, every=0), r"Exponential.every must be a whole number from 1"),
        (lambda: kn.Cosine(0), r"Cosine.rounds must be a whole number from 1"),
        (lambda: kn.Cosine(10, warm_up=-1), r"Cosine.warm_up must be a whole number from 0"),
        (lambda: kn.Cosine(10, floor=1.5), r"Cosine.floor must be a number in \[0, 1\)"),
    ],
)
def test_a_field_out_of_range_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()
