"""Clip bounds; codecs are bounded, quantisation unbiased; all compute the same in numpy and compiled."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import keys, tree
from koinon.channel.bfloat16 import Bfloat16
from koinon.channel.clip import Clip
from koinon.channel.quantise import Quantise
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, ConfigurationError

seeds = st.integers(0, 2**32 - 1)
patterns = st.lists(st.integers(0, 2**32 - 1), max_size=40).map(lambda bits: np.array(bits, np.uint32).view(np.float32))
numbers = st.lists(st.floats(-1.0, 1.0, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False))
CONTEXT = Context(keys.root(0), np.float32(1))


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
@pytest.mark.parametrize("transform", [Clip(1.0), Quantise(8), Quantise(8, block=5), Bfloat16()])
def test_what_is_not_finite_is_still_not_finite_after_the_channel(transform, bad: float) -> None:
    """So that the exact sum refuses the client: a channel must not make a diverged update look sound."""
    value = update(1)
    value["a"][1, 2] = bad
    with np.errstate(invalid="ignore"):
        assert not all(np.isfinite(leaf).all() for leaf in tree.leaves(through(transform, value)))


@pytest.mark.parametrize(
    "transform", [Clip(0.5), Quantise(8), Quantise(2), Quantise(8, block=5), Quantise(8, block=4), Bfloat16()]
)
def test_numpy_and_a_compiled_program_agree(transform) -> None:
    value, key = update(5), keys.root(9)
    compiled = jax.jit(lambda v, k: transform.encode(v, {}, Context(k, jnp.float32(1)))[0])(value, key)
    plain = transform.encode(value, {}, Context(key, np.float32(1)))[0]
    for a, b in zip(tree.leaves(compiled), tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6 if isinstance(transform, Clip) else 0)
        assert a.dtype == b.dtype


@given(patterns)
def test_bfloat16_is_what_numpys_own_type_of_that_name_holds(x) -> None:
    with np.errstate(invalid="ignore"):
        wanted = x.astype(ml_dtypes.bfloat16)
    bits = Bfloat16().encode({"x": x}, {}, CONTEXT)[0]["x"]["bfloat16"]
    assert np.array_equal(bits, wanted.view(np.uint16))
    assert np.array_equal(np.asarray(jnp.asarray(x).astype(jnp.bfloat16)).view(np.uint16), bits)
    np.testing.assert_array_equal(through(Bfloat16(), {"x": x})["x"], wanted.astype(np.float32))


@given(numbers)
def test_bfloat16_is_off_by_one_in_256_at_most_and_rounds_once(given_numbers) -> None:
    x = np.array(given_numbers, np.float32)
    x = x[np.abs(x) < float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)]
    sent = through(Bfloat16(), {"x": x})["x"]
    wide = x.astype(np.float64)
    assert np.all(np.abs(sent - wide) <= np.maximum(np.abs(wide) / 256, 2.0**-134))
    assert np.array_equal(through(Bfloat16(), {"x": sent})["x"], sent)
    assert np.array_equal(through(Bfloat16(), {"x": -x})["x"], -sent)
    assert np.all(np.diff(through(Bfloat16(), {"x": np.sort(x)})["x"]) >= 0)


@given(seeds, st.floats(1e-12, 1e12))
def test_a_clipped_update_in_bfloat16_is_within_the_bound_it_declares(seed: int, bound: float) -> None:
    wire = Bfloat16().check(Clip(bound).check(Wire()))
    sent = through(Bfloat16(), through(Clip(bound), update(seed, 10 * bound)))
    assert norm(sent) <= wire.l2_bound


def test_rounding_to_bfloat16_can_lengthen_an_update_by_almost_all_it_declares() -> None:
    x = np.full(1000, 1 + 2.0**-8 + 2.0**-23, np.float32)
    growth = norm(through(Bfloat16(), {"x": x})) / norm({"x": x})
    assert 1 + 0.99 / 256 < growth <= Bfloat16().check(Clip(1.0).check(Wire())).l2_bound


@given(seeds, st.integers(2, 8), st.integers(1, 15), st.sampled_from([1e-20, 1e-3, 1.0, 1e6, 1e37]))
def test_a_number_is_off_by_less_than_a_step_of_its_own_block(seed: int, bits: int, block: int, size: float) -> None:
    x = (size * np.random.default_rng(seed).normal(size=(3, 7))).astype(np.float32)
    gap = np.abs(through(Quantise(bits, block), {"x": x}, seed)["x"].astype(np.float64) - x).reshape(-1)
    for start in range(0, x.size, block):
        step = np.abs(x.reshape(-1)[start : start + block]).max() / (2 ** (bits - 1) - 1)
        assert gap[start : start + block].max() <= step * (1 + 1e-4)


@given(seeds, st.integers(2, 8))
def test_one_block_as_long_as_the_leaf_sends_the_codes_of_no_block(seed: int, bits: int) -> None:
    value = update(seed)
    whole = Quantise(bits).encode(value, {}, Context(keys.root(seed), 1))[0]
    one = Quantise(bits, block=12).encode(value, {}, Context(keys.root(seed), 1))[0]
    for name in ("a", "b"):
        a, b = (sent[name] if name == "a" else sent[name]["c"] for sent in (whole, one))
        assert np.array_equal(a["code"], b["code"])
        assert a["scale"].shape == () and b["scale"].shape == (1,) and a["scale"] == b["scale"][0]


def test_a_large_number_coarsens_its_own_block_alone() -> None:
    x = np.random.default_rng(3).normal(size=100).astype(np.float32)
    spiked = x.copy()
    spiked[55] = 1e20
    calm, spiky = (through(Quantise(8, block=10), {"x": v})["x"] for v in (x, spiked))
    assert np.array_equal(np.delete(calm, np.s_[50:60]), np.delete(spiky, np.s_[50:60]))
    assert not np.array_equal(calm[50:60], spiky[50:60])
    assert np.abs(through(Quantise(8), {"x": spiked})["x"] - x)[:50].max() > 0.1, "one scale would spoil them all"


def test_quantisation_in_blocks_is_unbiased() -> None:
    x = np.concatenate([np.linspace(-1, 1, 20), np.linspace(-30, 30, 20), [0.3]]).astype(np.float32)
    draws = np.stack([through(Quantise(3, block=20), {"x": x}, key)["x"] for key in range(3000)])
    step = np.repeat([1.0, 30.0, 0.3], [20, 20, 1]) / 3
    assert np.all(np.abs(draws.mean(axis=0) - x) < 4.5 * (step / 2) / 3000**0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_leaves_the_others_as_they_were(bad: float) -> None:
    x = np.linspace(-1, 1, 30, dtype=np.float32)
    spoilt = x.copy()
    spoilt[12] = bad
    with np.errstate(invalid="ignore"):
        sent = through(Quantise(8, block=10), {"x": spoilt})["x"]
    assert np.isfinite(sent).tolist() == [True] * 10 + [False] * 10 + [True] * 10
    assert np.array_equal(sent[:10], through(Quantise(8, block=10), {"x": x})["x"][:10])


@given(
    st.lists(st.integers(0, 40), max_size=4),
    st.sampled_from([Bfloat16(), Quantise(), Quantise(3), Quantise(block=8), Quantise(2, block=1)]),
)
def test_the_bytes_promised_are_the_bytes_of_the_payload(sizes: list[int], codec) -> None:
    value = {str(i): np.ones(size, np.float32) for i, size in enumerate(sizes)}
    payload, _ = codec.encode(value, {}, CONTEXT)
    promised = codec.payload_bytes({name: x.size for name, x in value.items()}, 4 * sum(sizes))
    assert tree.size_bytes(payload) == promised


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
    rounded = Bfloat16().check(Clip(2.0).check(Wire()))
    assert (rounded.domain, rounded.additive, rounded.l2_bound, rounded.bits) == (
        Domain.INTEGER,
        False,
        2 + 2 / 256,
        16,
    )
    assert Bfloat16().check(Wire()).l2_bound is None
    with pytest.raises(CompositionError, match=r"Bfloat16\(\) works on real numbers, but receives INTEGER"):
        Bfloat16().check(quantised)


@pytest.mark.parametrize("norm", [0, -1.0, float("inf"), float("nan"), "1"])
def test_a_bound_is_a_number_above_zero(norm) -> None:
    with pytest.raises(ConfigurationError, match=r"Clip\.norm"):
        Clip(norm)


@pytest.mark.parametrize("bits", [1, 9, 2.5, "8"])
def test_a_code_has_two_to_eight_bits(bits) -> None:
    with pytest.raises(ConfigurationError, match=r"Quantise\.bits"):
        Quantise(bits)


@pytest.mark.parametrize("block", [0, -1, 2.5, "8", True])
def test_a_block_has_one_number_at_least(block) -> None:
    with pytest.raises(ConfigurationError, match=r"Quantise\.block must be a whole number from 1"):
        Quantise(block=block)


def test_bytes_on_the_wire() -> None:
    assert Quantise(8).payload_bytes({"a": 10, "b": 3}, 52) == 13 + 8
    assert Quantise(3).payload_bytes({"a": 10}, 40) == 10 + 4
    assert Quantise(block=4).payload_bytes({"a": 10, "b": 3}, 52) == 13 + 12 + 4
    assert Bfloat16().payload_bytes({"a": 10, "b": 3}, 52) == 26
    assert Clip(1.0).payload_bytes({"a": 10}, 40) == 40
