"""Noise is normal, of the size that was accounted, on the exact sum's grid, secret and the same after a crash."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from koinon import exact, keys, tree
from koinon.channel.central import LARGEST, sensitivity
from koinon.channel.clip import Clip
from koinon.channel.correlated_noise import CorrelatedNoise
from koinon.channel.noise import GaussianNoise
from koinon.core.types import Context
from koinon.core.wire import Wire
from koinon.privacy.mechanism import Noise
from koinon.privacy.random_bits import PrivacyKeys, RandomStream
from koinon.sample.samplers import All, Poisson, Uniform

KEY = bytes(range(32))
COUNT = 400_000


def noise_of(key: bytes) -> Noise:
    return Noise(lambda round: RandomStream(key, round).normals)


def test_normals_are_normal() -> None:
    drawn = RandomStream(KEY, 1).normals(COUNT)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    assert abs(drawn.mean()) < 4.5 * COUNT**-0.5
    assert abs(drawn.var() - 1) < 4.5 * (2 / COUNT) ** 0.5
    assert abs((drawn**3).mean()) < 4.5 * (15 / COUNT) ** 0.5
    assert abs((drawn**4).mean() - 3) < 4.5 * (96 / COUNT) ** 0.5
    for level in (2.0, 3.0, 4.0):  # the tails, both of them
        wanted = 2 * stats.norm.sf(level) * COUNT
        assert abs((np.abs(drawn) > level).sum() - wanted) < 4.5 * wanted**0.5 + 1


def test_normals_of_one_block_are_not_alike() -> None:
    drawn = RandomStream(KEY, 1).normals(COUNT)
    for lag in (1, 2, 1 << 15, 1 << 16):  # neighbours, the pairs of one radius, whole blocks
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 4.5 * COUNT**-0.5
        assert abs(np.corrcoef(drawn[:-lag] ** 2, drawn[lag:] ** 2)[0, 1]) < 4.5 * COUNT**-0.5


def test_the_bits_are_those_of_the_cipher() -> None:
    """AES-256 in counter mode, the round in the upper half of the counter (NIST SP 800-38A)."""
    cipher = Cipher(algorithms.AES(KEY), modes.CTR((7).to_bytes(8, "big") + bytes(8))).encryptor()
    assert RandomStream(KEY, 7).bits(100).tobytes() == cipher.update(bytes(400))


@given(st.integers(1, 2**40), st.integers(0, 300))
def test_a_stream_is_a_function_of_key_and_round(round: int, count: int) -> None:
    assert len(RandomStream(KEY, round).normals(count)) == count
    again = RandomStream(KEY, round).normals(count)
    assert np.array_equal(RandomStream(KEY, round).normals(count), again)
    if count > 2:
        assert not np.array_equal(RandomStream(KEY, round + 1).normals(count), again)
        assert not np.array_equal(RandomStream(KEY[::-1], round).normals(count), again)


def test_keys_are_fresh_kept_whole_and_marked_where_they_are_not_secret() -> None:
    one, two = PrivacyKeys.fresh(), PrivacyKeys.fresh()
    assert len({one.noise, one.cohort, two.noise, two.cohort}) == 4
    assert one.run != two.run
    assert PrivacyKeys.from_bytes(one.to_bytes()) == one
    test = PrivacyKeys.of_test(3)
    assert not test.secret
    assert PrivacyKeys.from_bytes(test.to_bytes()) == test == PrivacyKeys.of_test(3) != PrivacyKeys.of_test(4)


def test_released_noise_has_the_deviation_that_is_accounted_and_lies_on_the_grid() -> None:
    total = {"w": np.zeros((100, COUNT // 100), np.int64), "b": np.zeros((), np.int64)}
    noisy = GaussianNoise(1.3).release(total, 0.25, 1, noise_of(KEY))
    assert tree.structure(noisy) == tree.structure(total)
    assert {leaf.dtype for leaf in tree.leaves(noisy)} == {np.dtype(np.int64)}
    found = noisy["w"].reshape(-1) / exact.SCALE
    assert stats.kstest(found / (1.3 * 0.25), "norm").pvalue > 1e-3
    assert found.std() == pytest.approx(1.3 * sensitivity(0.25, COUNT + 1), rel=4.5 * (2 * COUNT) ** -0.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_noise_does_not_look_at_the_data(seed: int, round: int) -> None:
    """What is added is the same whatever the sum: rounding happens to the noise, not to what it hides."""
    total = {"w": np.random.default_rng(seed).integers(-(2**50), 2**50, 31)}
    noise = GaussianNoise(1.0)
    moved = noise.release(total, 1.0, round, noise_of(KEY))["w"] - total["w"]
    alone = noise.release(tree.zeros(total), 1.0, round, noise_of(KEY))["w"]
    assert np.array_equal(moved, alone)


@pytest.mark.parametrize("numbers", [1, 1000, 1_000_000])
@pytest.mark.parametrize("norm", [1e-6, 1e-3, 1.0, 300.0])
def test_no_client_moves_the_exact_sum_by_more_than_the_sensitivity(norm: float, numbers: int) -> None:
    """Also after float32 and rounding to the grid: the noise is for the integers that are added."""
    draw = np.random.default_rng(0)
    for value in (np.full(numbers, 3.0), draw.normal(size=numbers) * 1e4, np.eye(1, numbers)[0] * 1e18):
        update = {"w": value.astype(np.float32)}
        sent, _ = Clip(norm).encode(update, {}, Context(keys.root(0), 1))
        moved = exact.convert(sent["w"], np.float32(1)) / exact.SCALE
        assert np.linalg.norm(moved) <= sensitivity(norm, numbers)


def test_the_largest_noise_still_hides_the_last_bit_of_the_sum() -> None:
    """Normals have 53 bits: of a larger deviation they would be multiples of 2, and what is odd would show."""
    largest = GaussianNoise(LARGEST * 0.99)
    largest.check(Wire(l2_bound=1.0))
    noise = largest.release({"w": np.zeros(COUNT, np.int64)}, 1.0, 1, noise_of(KEY))["w"]
    for bit in range(4):
        share = ((noise >> bit) & 1).mean()
        assert abs(share - 0.5) < 4.5 * 0.5 * COUNT**-0.5, f"bit {bit} is set in {share:.2%}"


def test_a_coin_is_counted_with_the_probability_it_has() -> None:
    for rate in (1e-9, 0.1, 1 / 3, 1.0):
        counted = Poisson(rate).participation(1000).rate
        falling = counted * 2**32  # how many of the 2**32 words are below the threshold
        assert falling == int(falling)
        assert falling - 1 < rate * 2.0**32 <= falling, "all coins below the counted probability fall, and no other"
        assert rate <= counted <= rate + 2.0**-32


@pytest.mark.parametrize("sampler", [All(), Uniform(3), Uniform(40), Poisson(0.2)], ids=repr)
def test_cohorts_of_secret_bits_are_what_the_sampler_says(sampler) -> None:
    population, rounds = 60, 600
    cohorts = [sampler.choose(population, RandomStream(KEY, round).bits) for round in range(rounds)]
    sizes = np.array([len(cohort) for cohort in cohorts])
    assert sizes.mean() == pytest.approx(sampler.expected(population), abs=4.5 * (population / 4 / rounds) ** 0.5)
    seen = np.bincount(np.concatenate(cohorts), minlength=population)
    rate = sampler.participation(population).rate
    assert np.all(np.abs(seen - rounds * rate) <= 4.5 * (rounds * rate * (1 - rate)) ** 0.5)


def correlated(bands: int, rounds: int, count: int, multiplier: float = 1.0, noise: Noise | None = None) -> np.ndarray:
    """Return the noise of rounds 1 to ``rounds`` as it is released, ``[rounds, count]``, for a norm of 1."""
    noise, mechanism = noise or noise_of(KEY), CorrelatedNoise(multiplier, bands)
    total = {"w": np.zeros(count, np.int64)}
    return np.stack([mechanism.release(total, 1.0, t, noise)["w"] for t in range(1, rounds + 1)]) / exact.SCALE


def matrix(coefficients: np.ndarray, rounds: int) -> np.ndarray:
    return sum(np.diag(np.full(rounds - j, c), -j) for j, c in enumerate(coefficients[:rounds]))


@pytest.mark.parametrize(("bands", "rounds"), [(1, 5), (2, 7), (4, 12), (30, 12)])
def test_correlated_noise_is_the_inverse_matrix_times_independent_normals(bands: int, rounds: int) -> None:
    mechanism, count = CorrelatedNoise(1.5, bands), 40
    z = np.stack([RandomStream(KEY, t).normals(count) for t in range(1, rounds + 1)])
    length = 1.5 * np.linalg.norm(mechanism.coefficients) * sensitivity(1.0, count)
    wanted = np.linalg.inv(matrix(mechanism.coefficients, rounds)) @ z * length
    np.testing.assert_allclose(correlated(bands, rounds, count, 1.5), wanted, atol=2.0**-30)


def test_the_matrix_is_the_root_of_the_sums() -> None:
    """Without bands its square adds up all rounds before: the first coefficients are 1, 1/2, 3/8, 5/16."""
    whole = CorrelatedNoise(1.0, 20).coefficients
    np.testing.assert_allclose(whole[:4], [1, 1 / 2, 3 / 8, 5 / 16])
    square = matrix(whole, 20) @ matrix(whole, 20)
    np.testing.assert_allclose(square, np.tril(np.ones((20, 20))), atol=1e-12)


@pytest.mark.parametrize("bands", [1, 3, 8])
def test_what_a_client_moves_is_what_is_charged(bands: int) -> None:
    """In turns ``bands`` apart its columns do not overlap: k turns move C x by sqrt(k) columns, exactly."""
    rounds = 5 * bands
    c = matrix(CorrelatedNoise(1.0, bands).coefficients, rounds)
    turns = np.zeros(rounds)
    turns[::bands] = 1
    column = np.linalg.norm(CorrelatedNoise(1.0, bands).coefficients)
    np.testing.assert_allclose(np.linalg.norm(c @ np.diag(turns)), 5**0.5 * column)
    signs = np.zeros(rounds)
    signs[::bands] = [1, -1, 1, 1, -1]
    assert np.linalg.norm(c @ signs) == pytest.approx(5**0.5 * column)


def test_sums_over_rounds_carry_less_noise_than_independent_noise() -> None:
    rounds, count = 32, 4000
    plain, banded = (correlated(bands, rounds, count).cumsum(axis=0) for bands in (1, 16))
    assert banded[-1].std() < 0.75 * plain[-1].std()
    # The mean square error over all prefixes is that of the matrices: A C**-1, times the norm of a column.
    mechanism = CorrelatedNoise(1.0, 16)
    strategy = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(matrix(mechanism.coefficients, rounds))
    wanted = np.linalg.norm(strategy) * np.linalg.norm(mechanism.coefficients) / rounds**0.5
    assert np.sqrt((banded**2).mean()) == pytest.approx(wanted, rel=0.02)


def test_correlated_noise_goes_on_after_a_restart_and_keeps_no_more_than_its_bands() -> None:
    noise = noise_of(KEY)
    straight = correlated(4, 10, 50, noise=noise)
    assert sorted(noise.kept) == [7, 8, 9, 10]
    mechanism, total = CorrelatedNoise(1.0, 4), {"w": np.zeros(50, np.int64)}
    resumed = mechanism.release(total, 1.0, 10, noise_of(KEY))["w"] / exact.SCALE
    assert np.array_equal(resumed, straight[9])
    again = mechanism.release(total, 1.0, 10, noise)["w"] / exact.SCALE
    assert np.array_equal(again, straight[9]), "a round that is repeated has the same noise"
