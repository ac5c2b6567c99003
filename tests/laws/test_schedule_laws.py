"""Schedules are functions of the round alone, from 1, and client optimisers are the textbook's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon.work.optimizers import Adam, Momentum, Sgd, adam, sgd
from koinon.work.schedules import Constant, Cosine, Exponential

rounds = st.integers(1, 1000)


@given(rounds, st.floats(0.5, 1.0), st.integers(1, 50))
def test_exponential_decay(round: int, decay: float, every: int) -> None:
    schedule = Exponential(decay, every)
    assert schedule.factor(1) == 1.0
    assert schedule.factor(round + every) == pytest.approx(schedule.factor(round) * decay, rel=1e-9)


@given(st.integers(1, 200), st.floats(0.0, 0.9), st.integers(0, 20))
def test_a_cosine_rises_through_its_warm_up_then_falls_to_its_floor(length: int, floor: float, warm_up: int) -> None:
    schedule = Cosine(length, floor, warm_up)
    factors = [schedule.factor(round) for round in range(1, length + 50 + warm_up)]
    assert factors[warm_up] == 1.0
    assert np.all(np.diff(factors[: warm_up + 1]) > 0)
    assert np.all(np.diff(factors[warm_up:]) <= 1e-12)
    assert min(factors) > 0 or floor == 0.0
    assert factors[-1] == pytest.approx(floor)


def test_a_cosine_by_hand() -> None:
    assert [round(Cosine(4).factor(r), 6) for r in range(1, 7)] == [1.0, 0.853553, 0.5, 0.146447, 0.0, 0.0]


@given(rounds)
def test_a_constant_is_one(round: int) -> None:
    assert Constant().factor(round) == 1.0


def steps(optimizer, gradients: list[float]) -> list[float]:
    params, state = {"w": np.float32([1.0])}, optimizer.init({"w": np.float32([1.0])})
    out = []
    for g in gradients:
        params, state = optimizer.apply(params, {"w": np.float32([g])}, state, np.float32(1))
        assert params["w"].dtype == np.float32
        out.append(float(params["w"][0]))
    return out


def test_steps_by_hand() -> None:
    assert steps(Sgd(0.5), [1.0, -2.0]) == [0.5, 1.5]
    assert steps(Momentum(0.5, 0.5), [1.0, 1.0]) == [0.5, -0.25]
    assert steps(Momentum(0.5, 0.5, nesterov=True), [1.0, 1.0]) == [0.25, -0.625]
    assert steps(Adam(0.1), [4.0, 4.0]) == pytest.approx([0.9, 0.8], abs=1e-5)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_adam_is_that_of_the_paper(gradients: list[float]) -> None:
    m = v = 0.0
    w, out = 1.0, []
    for t, g in enumerate(gradients, 1):
        g = float(np.float32(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        corrected = 0.01 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w -= corrected * m / (math.sqrt(v) + 1e-7)
        out.append(w)
    assert steps(adam(0.01), gradients) == pytest.approx(out, abs=2e-4)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_momentum_zero_is_gradient_descent(gradients: list[float]) -> None:
    assert steps(Momentum(0.1, 0.0), gradients) == steps(sgd(0.1), gradients)
