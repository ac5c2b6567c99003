"""What every sampler must hold to."""

from __future__ import annotations

from itertools import count

import numpy as np

from koinon import keys
from koinon.core.protocols import Sampler
from koinon.privacy.sampling import AccountedSampler, Bits, Sampling


def check_sampler(sampler: Sampler, *, population: int = 50, rounds: int = 2000) -> None:
    """Raise AssertionError unless cohorts are sorted, distinct, in range, no larger than said, and the key's alone.

    Every client must be drawn in some of the ``rounds``: one that never is has no part in the model. What a sampler
    tells the accountant must be what it does.
    """
    largest = sampler.largest(population)
    assert 1 <= largest <= population, f"{sampler!r}.largest({population}) is {largest}"
    seen = np.zeros(population, int)
    for round in range(rounds):
        key = keys.fold(keys.root(5), round)
        cohort = sampler.cohort(population, key)
        assert cohort.dtype == np.int64, f"{sampler!r} must give int64 positions; found {cohort.dtype}"
        assert len(cohort) <= largest, f"{sampler!r} drew {len(cohort)} clients and said {largest} at most"
        assert np.all(np.diff(cohort) > 0), f"{sampler!r} must draw each client once, in sorted order; found {cohort}"
        assert np.all((cohort >= 0) & (cohort < population)), f"{sampler!r} drew clients that do not exist: {cohort}"
        again = sampler.cohort(population, np.array(key))
        assert np.array_equal(again, cohort), f"{sampler!r} drew another cohort with the same key"
        seen[cohort] += 1
    never = np.nonzero(seen == 0)[0]
    assert not len(never), f"{sampler!r} never drew {len(never)} of {population} clients in {rounds} rounds"
    if isinstance(sampler, AccountedSampler):
        _check_accounted(sampler, population, rounds)


def _check_accounted(sampler: AccountedSampler, population: int, rounds: int) -> None:
    """Hold the draws from secret bits to the participation that is accounted."""
    said, expected = sampler.participation(population), sampler.expected(population)
    table = np.zeros((rounds, population))
    for round in range(rounds):
        table[round, sampler.choose(population, _bits(round))] = 1
    sizes, rates = table.sum(axis=1), table.mean(axis=0)
    room = 5 * (said.rate * (1 - said.rate) / rounds) ** 0.5
    assert 0 < said.rate <= 1, f"{sampler!r} says that a client takes part with probability {said.rate}"
    assert np.all(np.abs(rates - said.rate) <= room), (
        f"{sampler!r} says that every client takes part with probability {said.rate:.4g}; found {rates.min():.4g} to "
        f"{rates.max():.4g}"
    )
    assert abs(expected - said.rate * population) <= 1e-6 * population, f"{sampler!r} expects {expected} clients"
    spread = population * said.rate * (1 - said.rate) if said.sampling is Sampling.POISSON else 0.0
    assert abs(sizes.var() - spread) <= 5 * spread * (2 / rounds) ** 0.5, (
        f"{sampler!r} says it draws {said.sampling.value}; sizes then vary by {spread:.4g}, and they do by {sizes.var():.4g}"
    )
    if said.sampling is Sampling.POISSON and spread:
        pairs = np.corrcoef(table.T) - np.eye(population)
        assert np.abs(pairs).max() <= 6 * rounds**-0.5, f"{sampler!r} says its coins are independent; two go together"


def _bits(round: int) -> Bits:
    """Return bits for one round, fresh ones at every call."""
    turns = count()
    return lambda words: keys.bits(keys.fold(keys.root(11), round, next(turns)), words)
