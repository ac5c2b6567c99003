"""Clip bounds; quantisation is unbiased and bounded; both compute the same in numpy and compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import keys, tree
from koinon.channel.clip import Clip
from koinon.channel.quantise import Quantise
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, ConfigurationError

seeds = st.integers(0, 2**32 - 1)


def update(seed: int, size: float = 1.0) -> dict[str, object]:
    draw = np.random.default_rng(seed)
    return {
        "a": (size * draw.normal(size=(4, 3))).astype(np.float32),
        "b": {"c": np.float32(size * draw.normal()).reshape(()), "none": np.zeros(0, np.float32)},
    }


def through(transform, value, key=0):
    payload, _ = transform.encode(value, transform.init(value), Context(keys.root(key), np.float32(1)))
    return transform.decode(payload, Context(keys.root(key), np.float32(1)))


def norm(value) -> float:
    return float(np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in tree.leaves(value))))


@given(seeds, st.floats(1e-3, 1e3), st.sampled_from([1e-15, 1e-3, 1.0, 1e6, 1e15]))
def test_a_clipped_update_is_no_longer_than_its_bound_and_keeps_its_direction(
    seed: int, bound: float, size: float
) -> None:
    value = update(seed, size)
    clipped = through(Clip(bound), value)
    assert norm(clipped) <= bound * (1 + 1e-5)
    assert all(leaf.dtype == np.float32 for leaf in tree.leaves(clipped))
    factor = min(1.0, bound / norm(value))
    for before, after in zip(tree.leaves(value), tree.leaves(clipped), strict=True):
        np.testing.assert_allclose(after, before * factor, rtol=1e-5, atol=1e-30)


@given(seeds)
def test_an_update_within_the_bound_passes_unchanged(seed: int) -> None:
    value = update(seed)
    assert tree.digest(through(Clip(norm(value) * 1.001), value)) == tree.digest(value)
    assert tree.digest(through(Clip(1.0), tree.zeros(value))) == tree.digest(tree.zeros(value))


@given(seeds, st.integers(2, 8), st.sampled_from([1e-20, 1e-3, 1.0, 1e6]))
def test_a_quantised_update_is_off_by_less_than_a_step(seed: int, bits: int, size: float) -> None:
    value = update(seed, size)
    for before, after in zip(tree.leaves(value), tree.leaves(through(Quantise(bits), value, seed)), strict=True):
        if before.size:
            step = np.abs(before).max() / (2 ** (bits - 1) - 1)
            assert np.abs(after - before).max() <= step * (1 + 1e-4)
            assert after.dtype == np.float32


def test_quantisation_is_unbiased() -> None:
    x = np.linspace(-1, 1, 41, dtype=np.float32)
    draws = np.stack([through(Quantise(3), {"x": x}, key)["x"] for key in range(3000)])
    step = 1 / 3
    assert np.abs(draws.mean(axis=0) - x).max() < 4.5 * (step / 2) / 3000**0.5
    assert draws.std(axis=0).max() > 0.4 * step, "rounding must be at random, or it would be biased"


def test_multiples_of_the_step_and_zeros_are_exact() -> None:
    x = np.arange(-127, 128, dtype=np.float32)
    assert np.array_equal(through(Quantise(8), {"x": x})["x"], x)
    assert not through(Quantise(8), {"x": np.zeros(5, np.float32)})["x"].any()


def test_leaves_and_keys_round_apart() -> None:
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    both = through(Quantise(2), {"a": x, "b": x}, 1)
    assert not np.array_equal(both["a"], both["b"])
    assert not np.array_equal(both["a"], through(Quantise(2), {"a": x, "b": x}, 2)["a"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("transform", [Clip(1.0), Quantise(8)])
def test_what_is_not_finite_is_still_not_finite_after_the_channel(transform, bad: float) -> None:
    """So that the exact sum refuses the client: a channel must not make a diverged update look sound."""
    value = update(1)
    value["a"][1, 2] = bad
    with np.errstate(invalid="ignore"):
        assert not all(np.isfinite(leaf).all() for leaf in tree.leaves(through(transform, value)))


@pytest.mark.parametrize("transform", [Clip(0.5), Quantise(8), Quantise(2)])
def test_numpy_and_a_compiled_program_agree(transform) -> None:
    value, key = update(5), keys.root(9)
    compiled = jax.jit(lambda v, k: transform.encode(v, {}, Context(k, jnp.float32(1)))[0])(value, key)
    plain = transform.encode(value, {}, Context(key, np.float32(1)))[0]
    for a, b in zip(tree.leaves(compiled), tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert a.dtype == b.dtype


def test_leaves_may_be_called_what_a_code_is_made_of() -> None:
    value = {"code": np.ones(3, np.float32), "scale": np.full(3, 2.0, np.float32)}
    np.testing.assert_allclose(through(Quantise(8), {"layer": value})["layer"]["scale"], 2.0, rtol=1e-6)


def test_facts_of_a_channel() -> None:
    assert Clip(2.0).check(Wire()).l2_bound == 2.0
    quantised = Quantise(4).check(Clip(2.0).check(Wire()))
    assert (quantised.domain, quantised.additive, quantised.l2_bound, quantised.bits) == (
        Domain.INTEGER,
        False,
        None,
        4,
    )
    with pytest.raises(CompositionError, match=r"Clip\(norm=1.0\) works on real numbers, but receives INTEGER"):
        Clip(1.0).check(quantised)
    with pytest.raises(CompositionError, match="Move it before"):
        Quantise().check(quantised)


@pytest.mark.parametrize("norm", [0, -1.0, float("inf"), float("nan"), "1"])
def test_a_bound_is_a_number_above_zero(norm) -> None:
    with pytest.raises(ConfigurationError, match=r"Clip\.norm"):
        Clip(norm)


@pytest.mark.parametrize("bits", [1, 9, 2.5, "8"])
def test_a_code_has_two_to_eight_bits(bits) -> None:
    with pytest.raises(ConfigurationError, match=r"Quantise\.bits"):
        Quantise(bits)


def test_bytes_on_the_wire() -> None:
    assert Quantise(8).payload_bytes({"a": 10, "b": 3}, 52) == 13 + 8
    assert Quantise(3).payload_bytes({"a": 10}, 40) == 4 + 4
    assert Clip(1.0).payload_bytes({"a": 10}, 40) == 40
