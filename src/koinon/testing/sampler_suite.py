"""What every sampler must hold to."""

from __future__ import annotations

import numpy as np

from koinon import keys
from koinon.core.protocols import Sampler


def check_sampler(sampler: Sampler, *, population: int = 50, rounds: int = 2000) -> None:
    """Raise AssertionError unless cohorts are sorted, distinct, in range, no larger than said, and the key's alone.

    Every client must be drawn in some of the ``rounds``: one that never is has no part in the model.
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
