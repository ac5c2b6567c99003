"""Noise that the next rounds take back in part: privacy by noise alone, where no draw can be trusted (DP-FTRL).

Kairouz et al., "Practical and Private (Deep) Learning Without Sampling or Shuffling", ICML 2021. The matrix is the banded
square root of Kalinin and Lampert, "Banded Square Root Matrix Factorization for Differentially Private Model
Training", NeurIPS 2024: it has a formula, so there is nothing to optimise and nothing to ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon import tree
from koinon.channel.central import CentralNoise, sensitivity, with_noise
from koinon.core.ranges import positive, whole
from koinon.errors import CompositionError
from koinon.privacy.mechanism import Adjacency, Event, Noise
from koinon.privacy.sampling import Participation
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class CorrelatedNoise(CentralNoise):
    """Add noise whose sum over rounds grows slower than that of `GaussianNoise`: ``y = C**-1 z`` for independent ``z``.

    ``C`` is the lower triangular Toeplitz matrix of the first ``bands`` coefficients of ``(1 - x)**-0.5``. A client that
    takes part at most once in any ``bands`` rounds meets columns of ``C`` that do not overlap, so each time costs what a
    Gaussian of ``multiplier`` costs, ``z`` being longer by the norm of a column. The clients come in turn
    (``Cyclic(groups)`` with at least ``bands`` groups). With ``bands=1`` it is `GaussianNoise`. It keeps
    ``bands - 1`` rounds of noise in memory, float64, and makes them anew after a restart.
    """

    multiplier: float
    bands: int

    def __post_init__(self) -> None:
        positive(self, "multiplier")
        whole(self, "bands")

    @property
    def deviation(self) -> float:
        """The standard deviation of ``z`` over the norm of an update."""
        return float(self.multiplier * np.linalg.norm(self.coefficients))

    def check_algorithm(self, algorithm: Any) -> None:
        """Refuse what central noise refuses, and clients that may come more often than once in ``bands`` rounds."""
        super().check_algorithm(algorithm)
        separation = algorithm.sampler.participation(0).separation
        if separation < self.bands:
            raise CompositionError(
                f"{self!r} is for clients that take part once in {self.bands} rounds at most, but {algorithm.sampler!r} may "
                f"draw them once in {separation}. Use Cyclic({self.bands}) or more groups, or GaussianNoise."
            )

    @property
    def coefficients(self) -> Array:
        """The first column of ``C``, float64 ``[bands]``: 1, 1/2, 3/8, ..."""
        place = np.arange(1, self.bands)
        return np.cumprod(np.concatenate([[1.0], (2 * place - 1) / (2 * place)]))

    def event(self, participation: Participation) -> Event:
        """Return the event of the rounds in which a client has one turn."""
        return Event(self.multiplier, 1.0, Adjacency.ADD_OR_REMOVE)

    def release(self, total: Tree, bound: float, round: int, noise: Noise) -> Tree:
        """Return the int64 total with the round's row of ``C**-1 z``."""
        count = tree.size(total)
        row = self._row(count, round, noise)
        taken = iter(np.split(row, np.cumsum([np.size(leaf) for leaf in tree.leaves(total)])))
        return with_noise(total, self.deviation * sensitivity(bound, count), lambda _: next(taken))

    def _row(self, count: int, round: int, noise: Noise) -> Array:
        """Return ``y`` of a round by ``y[t] = z[t] - sum(c[j] * y[t - j])``, from the rows that are kept or from the first."""
        kept, coefficients = noise.kept, self.coefficients
        start = next(
            (t for t in range(round, 0, -1) if all(s in kept for s in range(max(1, t - self.bands + 1), t))), 1
        )
        for t in range(start, round + 1):
            row = noise.normals(t)(count)
            for j in range(1, min(self.bands, t)):
                row -= coefficients[j] * kept[t - j]
            kept[t] = row
            kept.pop(t - self.bands, None)
        return kept[round]
