"""Samplers draw what they say: sizes, ranges, and every client equally often."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koinon import keys
from koinon.sample.samplers import All, Poisson, Uniform

seeds = st.integers(0, 2**64 - 1)


@given(st.integers(1, 400), st.data(), seeds)
def test_a_uniform_cohort_is_distinct_sorted_in_range_and_of_its_size(population: int, data, seed: int) -> None:
    size = data.draw(st.integers(1, population))
    cohort = Uniform(size).cohort(population, keys.root(seed))
    assert cohort.dtype == np.int64
    assert len(cohort) == size == Uniform(size).largest(population)
    assert np.all(np.diff(cohort) > 0)
    assert cohort[0] >= 0
    assert cohort[-1] < population
    np.testing.assert_array_equal(cohort, Uniform(size).cohort(population, keys.root(seed)))


@given(st.integers(1, 300), st.floats(1e-6, 1.0), seeds)
def test_a_poisson_cohort_is_distinct_sorted_and_in_range(population: int, rate: float, seed: int) -> None:
    cohort = Poisson(rate).cohort(population, keys.root(seed))
    assert np.all(np.diff(cohort) > 0)
    assert np.all((cohort >= 0) & (cohort < population))
    assert len(cohort) <= Poisson(rate).largest(population)


def test_everybody_is_everybody() -> None:
    assert All().cohort(5, keys.root(0)).tolist() == [0, 1, 2, 3, 4] == Poisson(1.0).cohort(5, keys.root(0)).tolist()
    assert All().largest(5) == 5


def draws(sampler, population: int, rounds: int) -> list[np.ndarray]:
    key = keys.root(11)
    return [sampler.cohort(population, keys.fold(key, round)) for round in range(rounds)]


def chi_square(counts: np.ndarray, expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_every_client_is_drawn_equally_often() -> None:
    population, rounds = 40, 2000
    for size in (4, 30):  # the sparse way and the dense way
        counts = np.bincount(np.concatenate(draws(Uniform(size), population, rounds)), minlength=population)
        expected = rounds * size / population
        # A client is drawn or not: the statistic is scaled by the share that is not drawn, with 39 degrees of freedom.
        statistic = chi_square(counts, expected) / (1 - size / population) * (population - 1) / population
        assert statistic < 39 + 4 * (2 * 39) ** 0.5, size


def test_every_pair_of_clients_is_drawn_equally_often() -> None:
    population, rounds = 9, 2500
    for size in (2, 4):
        pairs = np.zeros((population, population), int)
        for cohort in draws(Uniform(size), population, rounds):
            pairs[np.ix_(cohort, cohort)] += 1
        counts = pairs[np.triu_indices(population, 1)]
        expected = rounds * size * (size - 1) / (population * (population - 1))
        assert np.abs(counts - expected).max() < 4.5 * expected**0.5, size


def test_coins_fall_at_their_rate_and_independently() -> None:
    population, rounds, rate = 500, 400, 0.07
    sizes = np.array([len(cohort) for cohort in draws(Poisson(rate), population, rounds)])
    mean, variance = population * rate, population * rate * (1 - rate)
    assert abs(sizes.mean() - mean) < 4 * (variance / rounds) ** 0.5
    assert 0.75 < sizes.var() / variance < 1.3


def test_a_small_cohort_of_a_large_population_costs_nothing() -> None:
    cohort = Uniform(100).cohort(2**31 - 1, keys.root(3))
    assert len(np.unique(cohort)) == 100
    assert cohort.max() > 2**29
