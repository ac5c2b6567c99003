"""The compiled exact sum is the numpy one, bit for bit: any size, any order, refused clients included."""

import numpy as np
import pytest

pytest.importorskip("jax")

from koinon import exact, tree
from koinon.aggregate.exact_jax import ExactSum
from koinon.round.settle import absorb

COHORT = 50
_BLOCK = exact._BLOCK  # numpy adds in blocks of this size


def update(seed: int, sizes: dict[str, tuple[int, ...]]) -> tree.Tree:
    draw = np.random.default_rng(seed)
    scale = np.float32(10.0 ** draw.integers(-6, 1))
    return {name: scale * draw.normal(size=shape).astype(np.float32) for name, shape in sizes.items()}


def by_numpy(updates: list[tree.Tree], weights: list[int]) -> tuple[tree.Tree, int]:
    total, summed = exact.zero(updates[0]), 0
    for value, weight in zip(updates, weights, strict=True):
        summed += weight * bool(absorb(total, value, weight, COHORT).all())
    return total, summed


@pytest.mark.parametrize("size", [0, 1, 7, _BLOCK - 1, _BLOCK, _BLOCK + 1, 3 * _BLOCK + 5])
def test_it_equals_the_numpy_sum_whatever_the_size(size: int) -> None:
    sizes = {"matrix": (size, 2), "vector": (size,), "scalar": ()}
    updates, weights = [update(seed, sizes) for seed in range(6)], [1, 60, 7, 4095, 3, 60]
    total = ExactSum(updates[0], COHORT)
    for value, weight in zip(updates, weights, strict=True):
        assert total.absorb(value, weight).all()
    wanted, summed = by_numpy(updates, weights)
    found, weight = total.finish()
    assert tree.digest(found) == tree.digest(wanted)
    assert weight == summed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -3e9])
@pytest.mark.parametrize("place", [0, _BLOCK + 1, 2 * _BLOCK + 3])
def test_a_refused_update_is_taken_out_again_to_the_last_bit(bad: float, place: int) -> None:
    sizes = {"bias": (3,), "kernel": (2 * _BLOCK + 4,)}
    good = [update(seed, sizes) for seed in range(3)]
    spoilt = update(9, sizes)
    spoilt["kernel"][place] = bad
    total = ExactSum(good[0], COHORT)
    verdicts = [total.absorb(value, 5).tolist() for value in (good[0], spoilt, good[1], good[2])]
    assert verdicts == [[True, True], [True, False], [True, True], [True, True]]
    wanted, summed = by_numpy(good, [5] * 3)
    found, weight = total.finish()
    assert tree.digest(found) == tree.digest(wanted)
    assert weight == summed == 15


def test_no_order_shows() -> None:
    sizes = {"kernel": (_BLOCK + 100,)}
    updates = [update(seed, sizes) for seed in range(5)]
    digests = set()
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        total = ExactSum(updates[0], COHORT)
        for i in order:
            total.absorb(updates[i], i + 1)
        digests.add(tree.digest(total.finish()[0]))
    assert len(digests) == 1


def test_the_update_is_left_alone() -> None:
    value = update(0, {"kernel": (_BLOCK + 1,)})
    before = tree.digest(value)
    ExactSum(value, COHORT).absorb(value, 3)
    assert tree.digest(value) == before
