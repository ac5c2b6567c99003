"""Noise inside a secure sum: of the law, size and cost that are claimed; rotated and rounded within bounds."""

from math import isclose, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from koinon.errors import ConfigurationError, ProtocolError
from koinon.privacy import renyi
from koinon.privacy.secure_sum.distributed import SharedNoise
from koinon.privacy.secure_sum.primitives import digest
from koinon.privacy.secure_sum.rotation import conditional_round, longest_rounded, padded, rotate, rotate_back
from koinon.privacy.secure_sum.server import Stage
from koinon.privacy.secure_sum.simulate import simulate
from koinon.privacy.secure_sum.skellam import Skellam
from koinon.privacy.secure_sum.terms import Terms

KEY = bytes(range(32))
COUNT = 400_000


@pytest.mark.parametrize("variance", [0.0625, 1.0, 37.5, 1024.0, 10.0**6])
def test_the_chances_are_those_of_skellams_law(variance: float) -> None:
    """exp(-v) I_k(v), twice where both signs have it."""
    found = np.array([chance / 2**192 for chance in Skellam(variance).chances()])
    sizes = np.arange(len(found))
    wanted = special.ive(sizes, variance) * np.where(sizes, 2, 1)
    assert np.abs(found - wanted).max() < 1e-15
    seen = wanted > 2.0**-120
    assert np.abs(found[seen] / wanted[seen] - 1).max() < 1e-6, "the tails too"
    assert sum(Skellam(variance).chances()) <= 2**192 < sum(Skellam(variance).chances()) + len(found)


@pytest.mark.parametrize("variance", [0.25, 9.0, 400.0])
def test_what_is_drawn_is_of_that_law(variance: float) -> None:
    drawn = Skellam(variance).draw(COUNT, KEY)
    chances = np.array([chance / 2**192 for chance in Skellam(variance).chances()])
    law = np.concatenate([chances[:0:-1] / 2, chances[:1], chances[1:] / 2])
    zero, often = len(chances) - 1, law * COUNT >= 10
    counts = np.bincount(drawn + zero, minlength=len(law))
    seen, wanted = np.append(counts[often], counts[~often].sum()), np.append(law[often], law[~often].sum()) * COUNT
    if wanted[-1] < 5:
        seen, wanted = seen[:-1], wanted[:-1] * seen[:-1].sum() / wanted[:-1].sum()
    assert stats.chisquare(seen, wanted).pvalue > 1e-4
    for lag in (1, 2, 1 << 16, 1 << 17):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 5 * COUNT**-0.5


def test_a_draw_is_a_function_of_its_key() -> None:
    one = Skellam(9.0)
    assert np.array_equal(one.draw(300_000, KEY)[:1000], one.draw(1000, KEY))
    assert not np.array_equal(one.draw(1000, KEY), one.draw(1000, KEY[::-1]))
    assert len(one.draw(0, KEY)) == 0


def test_a_word_between_two_sizes_is_decided_by_its_lower_bits() -> None:
    """A table of one bit of the upper word: nearly every word is a tie."""
    coarse = Skellam(0.5)
    upper, lower = coarse._table
    assert (upper[-1], len(upper)) == (2**64 - 1, len(lower))
    exact = [sum(coarse.chances()[: k + 1]) >> 65 for k in range(len(upper))]
    assert [int(u) << 63 | int(v) for u, v in zip(upper, lower, strict=True)][:-20] == exact[:-20]


@pytest.mark.parametrize(("total", "survivors"), [(100.0, 7), (1e4, 67), (3.3, 3)])
def test_the_parts_of_the_survivors_are_at_least_the_whole(total: float, survivors: int) -> None:
    part = Skellam.of_share(total, survivors)
    assert total <= part.variance * survivors < total + survivors * 2**-15
    count = 50_000
    drawn = sum(part.draw(count, digest(bytes([i]))) for i in range(survivors))
    assert abs(drawn.var() / total - 1) < 6 * (2 / count) ** 0.5
    assert abs(drawn.mean()) < 5 * sqrt(total / count)


@pytest.mark.parametrize("variance", [0.0, 1e12, float("nan")])
def test_noise_that_cannot_be_drawn_is_refused(variance: float) -> None:
    with pytest.raises(ConfigurationError, match="can be drawn"):
        Skellam(variance)


def true_divergence(order: float, variance: float, shift: int) -> float:
    """The Renyi divergence of Skellam's law and itself shifted, by its definition."""
    reach = int(20 * sqrt(variance) + 40 * order) + shift
    k = np.arange(-reach, reach + 1)
    p, q = (np.log(np.maximum(special.ive(np.abs(k - s), variance), 1e-300)) for s in (0, shift))
    return float(special.logsumexp(order * p + (1 - order) * q)) / (order - 1)


@pytest.mark.parametrize("variance", [4.0, 20.0, 100.0, 2500.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("order", [1.25, 2.0, 2.5, 5.0, 7.75, 16.0])
def test_the_divergence_that_is_counted_is_no_less_than_the_true_one(variance: float, shift: int, order: float) -> None:
    found, true = renyi.skellam(order, variance, shift, shift), true_divergence(order, variance, shift)
    assert true <= found * (1 + 1e-9)
    if variance >= 2500 and order >= 2:
        assert found <= true * (1.1 if order.is_integer() else 1.25), "and not much more"


def test_the_divergence_is_that_of_the_paper() -> None:
    """Corollary 3.6, by hand: its second term is the lesser of two, one for much noise and one for little."""
    assert renyi.skellam(4.0, 50.0, 3.0, 9.0) == pytest.approx(4 * 9 / 100 + (7 * 9 + 6 * 9) / 10_000)
    assert renyi.skellam(64.0, 0.5, 1.0, 1.0) == pytest.approx(64 + min((127 + 6) / 1, 3 / 1))


@given(st.integers(1, 300), st.integers(0, 2**32))
def test_a_rotation_keeps_lengths_and_can_be_undone(numbers: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, numbers))
    turned = rotate(x, KEY)
    assert len(turned) == padded(numbers) < 2 * max(1, numbers)
    assert isclose(np.linalg.norm(turned), np.linalg.norm(x), rel_tol=1e-9)
    assert np.allclose(rotate_back(turned + rotate(y, KEY), numbers, KEY), x + y)


def test_a_rotation_spreads_a_spike() -> None:
    spike = np.zeros(5000)
    spike[17] = 1.0
    assert np.allclose(np.abs(rotate(spike, KEY)), 8192**-0.5)
    even = rotate(np.ones(8192), KEY)
    assert np.abs(even).max() < 5
    assert not np.allclose(even, rotate(np.ones(8192), KEY[::-1]))


@pytest.mark.parametrize("length", [0.0, 3.0, 50.0, 1000.0])
@pytest.mark.parametrize("numbers", [1, 64, 4096])
def test_a_rounded_update_is_near_short_and_right_on_average(length: float, numbers: int) -> None:
    x = np.random.default_rng(numbers).standard_normal(numbers)
    x *= length / np.linalg.norm(x)
    draws = [conditional_round(x, length, digest(i.to_bytes(2, "big"))) for i in range(300)]
    bound = longest_rounded(length, numbers)
    for drawn in draws:
        assert np.linalg.norm(drawn) <= bound
        assert np.abs(drawn - x).max() < 1
    if bound > length + 3:  # nothing was drawn again
        assert np.abs(np.mean(draws, axis=0) - x).max() < 5.5 * 0.5 / 300**0.5
    assert bound <= min(length + sqrt(numbers), sqrt(length**2 + numbers / 4 + length + sqrt(numbers) / 2))


@pytest.mark.parametrize("wrong", [10.1, np.nan, np.inf])
def test_an_update_that_is_longer_than_announced_is_refused(wrong: float) -> None:
    with pytest.raises(ProtocolError, match="Clip it first"):
        conditional_round(np.array([wrong, 0.0]), 10.0, KEY)


@pytest.mark.parametrize("bits", [16, 32])
def test_a_private_sum_is_the_sum_and_noise_of_the_size_that_is_counted(bits: int) -> None:
    """Five of six survive, and are as many as the noise was planned for."""
    private = SharedNoise(norm=1.0, multiplier=0.5, numbers=3000, scale=9 if bits == 16 else 13, survivors=5)
    layout, rotation = private.layout(6, 1, 6 / 5), digest(b"public")
    assert 8 * layout.zero().body.itemsize == bits
    rng = np.random.default_rng(4)
    updates = {f"site{i}": rng.standard_normal(3000) for i in range(6)}
    updates = {name: x / np.linalg.norm(x) * 0.999 for name, x in updates.items()}
    vectors = {
        name: layout.encode_integers(private.encode(x, rotation, digest(name.encode())), 1, np.zeros(1))
        for name, x in updates.items()
    }
    found = simulate(Terms(run="dp", round=1, layout=layout), vectors, {"site2": Stage.VECTORS})
    total = private.decode(layout.decode(found.total).update, rotation)
    error = total - sum(updates[name] for name in found.survivors)
    wanted = private.variance + 5 / 4 * np.mean([1])  # noise, and at most a quarter of a step of rounding each
    assert 0.9 * private.variance < error.var() * 4.0**private.scale < 1.1 * wanted
    assert stats.kstest(error / error.std(), "norm").pvalue > 1e-3


def test_a_narrow_ring_is_too_narrow_without_a_rotation() -> None:
    """What rotation is for: the ring of a million numbers."""
    private = SharedNoise(norm=1.0, multiplier=1.0, numbers=2**20, scale=10, survivors=60)
    assert private.layout(100, 0, 100 / 60).bits < 8 + np.log2(100 * private.length) - np.log2(2**20) / 2 + 5
    with pytest.raises(ConfigurationError, match="above 0"):
        SharedNoise(norm=0.0, multiplier=1.0, numbers=5, scale=3, survivors=4)
