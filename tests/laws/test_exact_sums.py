"""Every sum is a sum of integers: no order, grouping or library shows in a total, and none can overflow."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from koinon import exact, tree
from koinon.aggregate.exact_jax import ExactSum
from koinon.core.types import Rows
from koinon.round.settle import absorb, merge
from koinon.tree import Tree

SHAPES = {"kernel": (3, 4), "bias": (), "deep": {"scale": (5,), "none": (0,), "empty": {}}}
weights = st.integers(1, exact.LARGEST_WEIGHT - 1)


def update(seed: int, size: float) -> Tree:
    """Return a float32 update of every kind of leaf: a matrix, a scalar, none at all."""
    draw = np.random.default_rng(seed)

    def leaf(shape):
        return np.asarray(draw.normal(scale=size, size=shape), np.float32)

    return {
        "kernel": leaf((3, 4)),
        "bias": leaf(()),
        "deep": {"scale": leaf(5), "none": leaf(0), "empty": {}},
    }


clients = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([1e-12, 1e-3, 1.0, 1e2]), st.integers(1, 5000)),
    min_size=1,
    max_size=9,
)


def total_of(group: list[tuple[int, float, int]]) -> Tree:
    total = exact.zero(update(0, 1.0))
    for seed, size, weight in group:
        exact.accumulate(total, update(seed, size), weight)
    return total


def same(left: Tree, right: Tree) -> bool:
    return tree.names(left) == tree.names(right) and tree.digest(left) == tree.digest(right)


@given(clients, st.randoms(use_true_random=False), st.data())
def test_any_order_and_grouping_of_clients_gives_the_same_total(group, random, data) -> None:
    straight = total_of(group)
    shuffled = random.sample(group, len(group))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(group)), max_size=3)))
    parts = [total_of(shuffled[a:b]) for a, b in itertools.pairwise([0, *cuts, len(group)])]
    random.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = exact.merge(merged, part)
    assert same(merged, straight)


@given(clients)
def test_an_empty_group_changes_nothing(group) -> None:
    total = total_of(group)
    assert same(exact.merge(total_of([]), total), total)
    assert same(exact.merge(total, total_of([])), total)


@given(st.sampled_from([0, 1, 2, 32767, 32768, 32769, 70001]), st.integers(1, 10**6), st.integers(0, 2**32 - 1))
def test_blocked_accumulation_is_conversion_and_addition(size: int, weight: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=size).astype(np.float32)
    before = draw.integers(-(2**40), 2**40, size)
    total = {"x": before.copy()}
    exact.accumulate(total, {"x": x}, weight)
    np.testing.assert_array_equal(total["x"], before + exact.convert(x, np.float32(weight)))


def test_accumulation_reads_arrays_that_are_not_contiguous() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    total = exact.zero({"x": x.T})
    exact.accumulate(total, {"x": x.T}, 3)
    np.testing.assert_array_equal(total["x"], (3 * x.T * 2**30).astype(np.int64))


finite = arrays.arrays(np.float32, st.integers(1, 30), elements=st.floats(-256.0, 256.0, width=32))


@given(finite, weights)
@example(np.float32([0.5, 1.5, 2.5, -0.5, -1.5]) * np.float32(2.0**-30), 1)  # ties
@example(np.float32([1e-45, -1e-45, 1.1754942e-38, 0.0, -0.0]), exact.LARGEST_WEIGHT - 1)  # subnormal numbers
def test_jax_and_numpy_convert_to_the_same_integers(x, weight: int) -> None:
    with jax.enable_x64(True):
        compiled = jax.jit(exact.convert)(jnp.asarray(x), jnp.float32(weight))
        assert compiled.dtype == jnp.int64
    np.testing.assert_array_equal(np.asarray(compiled), exact.convert(x, np.float32(weight)))


@given(clients, st.integers(1, 20))
def test_the_compiled_sum_is_that_of_numpy_refusals_included(group, cohort: int) -> None:
    group = [*group, (1, 1e30, 1), (2, np.inf, 3)]  # somebody always has to be refused
    compiled, total, weight = ExactSum(update(0, 1.0), cohort), exact.zero(update(0, 1.0)), 0
    for seed, size, n in group:
        value = update(seed, size)
        verdicts = absorb(total, value, n, cohort)
        np.testing.assert_array_equal(compiled.absorb(value, n), verdicts)
        weight += n if verdicts.all() else 0
    found, summed = compiled.finish()
    assert summed == weight
    assert same(found, total)


def test_ties_round_to_the_even_integer() -> None:
    halves = np.float32([0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5]) * np.float32(2.0**-30)
    assert exact.convert(halves, np.float32(1)).tolist() == [0, 2, 2, 4, 0, -2, -2]


@given(st.integers(1, 2**31), weights)
@example(1, 1)
@example(1, exact.LARGEST_WEIGHT - 1)
@example(2**31, exact.LARGEST_WEIGHT - 1)
def test_a_whole_cohort_of_accepted_clients_cannot_overflow(cohort: int, weight: int) -> None:
    """The largest number any client of the cohort may send, sent by all of them, fits 63 bits."""
    for bound in (
        np.float32(exact.limit(cohort, weight)),  # as the reference engine computes it
        np.float32(exact.limit(np.float32(cohort), np.float32(weight))),  # as a compiled program does
    ):
        largest = np.float32(bound)
        while exact.acceptable({"x": np.nextafter(largest, np.float32(np.inf)).reshape(1)}, bound)[0]:
            largest = np.nextafter(largest, np.float32(np.inf))
        assert exact.acceptable({"x": np.full(1, largest * np.float32(0.999))}, bound)[0], "the whole share is usable"
        assert abs(int(exact.convert(-largest, np.float32(weight)))) * cohort < 2**63


@given(st.lists(st.integers(1, 2**24 - 1), min_size=1, max_size=12))
def test_clients_of_any_weights_at_their_limit_add_up(chosen: list[int]) -> None:
    total, cohort = exact.zero({"x": np.zeros(2)}), len(chosen)
    expected = [0, 0]
    for weight in chosen:
        most = np.float32(exact.limit(cohort, weight)) * np.float32(0.7)  # two of these have the largest norm
        value = {"x": np.array([most, -most], np.float32)}
        assert absorb(total, value, weight, cohort).all()
        expected = [e + int(v) for e, v in zip(expected, exact.convert(value["x"], np.float32(weight)), strict=True)]
    assert [int(t) for t in total["x"]] == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, 2.0**31])
@pytest.mark.parametrize("name", ["bias", "deep.scale", "kernel"])
def test_a_value_that_cannot_be_added_refuses_its_client_by_leaf(bad: float, name: str) -> None:
    value = update(1, 1.0)
    total = exact.zero(value)
    leaf = dict(tree.items(value))[name]
    leaf[(0,) * leaf.ndim] = bad
    verdicts = absorb(total, value, 3.0, cohort=2)
    rows = Rows(np.array([7]), np.zeros(1), {}, verdicts[None], tree.names(value))
    assert rows.refused() == {7: (name,)}
    assert same(total, exact.zero(value)), "nothing of a refused client may be added"


def test_the_limit_is_of_the_cohort_not_of_the_chunk() -> None:
    value = {"x": np.full(4, 2.0**20, np.float32)}
    assert absorb(exact.zero(value), value, 1, cohort=100).all()
    assert not absorb(exact.zero(value), value, 1, cohort=10_000).any()


@given(clients)
def test_the_mean_is_the_weighted_mean_to_fixed_point_and_float32(group) -> None:
    total, weight = total_of(group), sum(w for _, _, w in group)
    for name, mean in tree.items(exact.mean(total, weight)):
        leaves = [np.asarray(dict(tree.items(update(seed, size)))[name], np.float64) for seed, size, _ in group]
        real = sum(w * x for (_, _, w), x in zip(group, leaves, strict=True)) / weight
        slack = sum(
            0.5 * exact.SCALE**-1 + w * np.abs(x) * 2.0**-23 for (_, _, w), x in zip(group, leaves, strict=True)
        )
        assert mean.dtype == np.float64
        assert np.all(np.abs(mean - real) <= slack / weight)


def test_the_mean_of_one_power_of_two_weight_is_within_half_a_unit() -> None:
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    total = exact.zero({"x": x})
    exact.accumulate(total, {"x": x}, 64)
    assert np.abs(exact.mean(total, 64)["x"] - x).max() <= 0.5 * 2.0**-30 / 64


def test_one_chunk_is_its_own_merge() -> None:
    from koinon.core.types import Partial

    only = Partial({}, 3, Rows(np.arange(1), np.ones(1), {}, np.ones((1, 0), bool), ()))
    assert merge([only]) is only
