"""Metrics are sums: they add over any split of the examples, and end at the textbook figure."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon.metrics import Accuracy, AreaUnderCurve, MeanSquaredError, finish, lower_is_better

seeds = st.integers(0, 2**32 - 1)


def examples(seed: int, count: int = 40):
    """Return labels, logits that know something of them, and a mask without a few."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, count).astype(np.float32)
    logits = (2 * y - 1 + 2 * draw.normal(size=count)).astype(np.float32)
    return y, logits, (draw.random(count) > 0.2).astype(np.float32)


@given(seeds, st.lists(st.integers(0, 40), max_size=4))
@pytest.mark.parametrize("metric", [Accuracy(), AreaUnderCurve(bins=50), MeanSquaredError()])
def test_sums_add_over_any_split(metric, seed: int, cuts: list[int]) -> None:
    y, logits, mask = examples(seed)
    whole = metric.sums(y, logits, mask)
    ends = [0, *sorted(cuts), 40]
    parts = [metric.sums(y[a:b], logits[a:b], mask[a:b]) for a, b in itertools.pairwise(ends) if a < b]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5, atol=1e-5)


@given(seeds)
@pytest.mark.parametrize("metric", [Accuracy(), AreaUnderCurve(bins=50), MeanSquaredError()])
def test_rows_that_do_not_count_change_nothing(metric, seed: int) -> None:
    y, logits, mask = examples(seed)
    kept = mask > 0
    wrong = np.where(kept, logits, -logits)
    np.testing.assert_allclose(
        metric.sums(y, wrong, mask), metric.sums(y[kept], logits[kept], np.ones(kept.sum(), np.float32)), rtol=1e-5
    )


def rank_statistic(y, score) -> float:
    """Return the chance that a positive scores above a negative, by comparing every pair; ties are a half."""
    positive, negative = score[y > 0.5][:, None], score[y <= 0.5][None, :]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())


@given(seeds)
def test_the_area_is_the_rank_statistic_of_the_binned_scores(seed: int) -> None:
    y, logits, _ = examples(seed)
    ones, metric = np.ones(len(y), np.float32), AreaUnderCurve(bins=1000)
    area = metric.finish(metric.sums(y, logits, ones), len(y))
    probability = 0.5 * (np.tanh(0.5 * logits) + 1)
    if 0 < y.sum() < len(y):
        assert area == pytest.approx(rank_statistic(y, np.floor(probability * 1000)), abs=1e-9)
        gap = np.abs(probability[y > 0.5][:, None] - probability[y <= 0.5][None, :])
        tied = float((gap < 1e-3).mean())  # pairs that may share a bin
        assert abs(area - rank_statistic(y, probability)) <= 0.5 * tied + 1e-9
    else:
        assert np.isnan(area)


def test_the_area_by_hand() -> None:
    metric = AreaUnderCurve()
    y, ones = np.float32([0, 0, 1, 1]), np.ones(4, np.float32)

    def area(*logits: float) -> float:
        return metric.finish(metric.sums(y, np.float32(logits), ones), 4)

    assert area(-2, -1, 1, 2) == 1
    assert area(2, 1, -1, -2) == 0
    assert area(0, 0, 0, 0) == 0.5
    assert area(-1, 1, 0, 2) == 0.75
    assert area(-1e9, 1e9, -1e9, 1e9) == 0.5, "a saturated probability has a bin too"


def test_accuracy_by_hand() -> None:
    metric, ones = Accuracy(), np.ones(4, np.float32)
    scores = np.float32([[1, 0, 0], [0, 3, 0], [0, 0, 9], [5, 6, 0]])
    assert metric.finish(metric.sums(np.int32([0, 1, 2, 0]), scores, ones), 4) == 0.75
    assert metric.finish(metric.sums(np.int32([[0], [1], [2], [0]]), scores, ones), 4) == 0.75
    assert metric.finish(metric.sums(np.float32([1, 0, 1, 0]), np.float32([3, -3, -1, 1]), ones), 4) == 0.5
    assert metric.finish(metric.sums(np.float32([1, 0, 1, 0]), np.float32([[3], [-3], [-1], [1]]), ones), 4) == 0.5
    sequence = np.float32([[[1, 0], [1, 0]], [[0, 1], [1, 0]]])
    assert metric.sums(np.int32([[0, 0], [0, 0]]), sequence, np.ones(2, np.float32)) == 1.5
    assert np.isnan(metric.finish(0.0, 0))


def test_mean_squared_error_by_hand() -> None:
    metric, ones = MeanSquaredError(), np.ones(2, np.float32)
    assert metric.finish(metric.sums(np.float32([1, 2]), np.float32([[3], [2]]), ones), 2) == 2
    assert metric.finish(metric.sums(np.float32([[1, 2], [0, 0]]), np.float32([[2, 2], [0, 3]]), ones), 2) == 2.5


@pytest.mark.parametrize("metric", [Accuracy(), AreaUnderCurve(bins=50), MeanSquaredError()])
def test_numpy_and_a_compiled_program_agree(metric) -> None:
    y, logits, mask = examples(3)
    compiled = jax.jit(metric.sums)(jnp.asarray(y), jnp.asarray(logits), jnp.asarray(mask))
    np.testing.assert_allclose(compiled, metric.sums(y, logits, mask), rtol=1e-6)


def test_figures_are_of_the_summed_examples() -> None:
    figures = finish([Accuracy()], {"examples": 8.0, "loss": 4.0, "accuracy": 6.0})
    assert figures == {"loss": 0.5, "accuracy": 0.75}
    assert np.isnan(finish([], {"examples": 0.0, "loss": 0.0})["loss"])


@pytest.mark.parametrize(
    ("name", "lower"),
    [("loss", True), ("test_loss_worst", True), ("mean_squared_error", True), ("root_mse", True), ("accuracy", False),
     ("auc", False), ("test_accuracy", False), ("gloss", False)],
)  # fmt: skip
def test_which_way_is_better_by_name(name: str, lower: bool) -> None:
    assert lower_is_better(name) is lower
