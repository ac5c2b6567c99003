"""The samplers of one round's cohort, by counter-based bits: no generator, no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import numpy as np

from koinon import keys
from koinon.core.ranges import whole
from koinon.errors import ConfigurationError
from koinon.privacy.sampling import Bits, Participation, Sampling
from koinon.tree import Array

_COINS = 2**32


@dataclass(frozen=True)
class All:
    """Every client, every round."""

    def cohort(self, population: int, key: Array) -> Array:
        """Return all positions."""
        return np.arange(population, dtype=np.int64)

    def choose(self, population: int, bits: Bits) -> Array:
        """Return all positions."""
        return np.arange(population, dtype=np.int64)

    def participation(self, population: int) -> Participation:
        """Return that nothing is drawn."""
        return Participation(Sampling.EVERYBODY, 1.0)

    def expected(self, population: int) -> float:
        """Return the population."""
        return float(population)

    def largest(self, population: int) -> int:
        """Return the population."""
        return population


@dataclass(frozen=True)
class Uniform:
    """``size`` clients, each set of them equally likely, without replacement."""

    size: int

    def __post_init__(self) -> None:
        whole(self, "size")

    def cohort(self, population: int, key: Array) -> Array:
        """Return ``size`` distinct positions; costs O(size) unless a quarter of all are asked for."""
        if self._dense(population):
            return self.choose(population, lambda words: keys.bits(key, words))
        turns = count()
        return self.choose(population, lambda words: keys.bits(keys.fold(key, next(turns)), words))

    def choose(self, population: int, bits: Bits) -> Array:
        """Return ``size`` distinct positions."""
        self.largest(population)
        if self._dense(population):
            order = np.argsort(bits(population), kind="stable")
            return np.sort(order[: self.size]).astype(np.int64)
        # Draw with replacement and keep the first of each: what remains is uniform without replacement.
        drawn = np.empty(0, np.int64)
        while True:
            fresh = bits(2 * self.size).astype(np.uint64)
            drawn = np.concatenate([drawn, ((fresh * np.uint64(population)) >> np.uint64(32)).astype(np.int64)])
            found, first = np.unique(drawn, return_index=True)
            if len(found) >= self.size:
                return np.sort(found[np.argsort(first)[: self.size]])

    def _dense(self, population: int) -> bool:
        return self.size * 4 > population

    def participation(self, population: int) -> Participation:
        """Return that the size is fixed."""
        return Participation(Sampling.FIXED_SIZE, self.size / max(self.size, population))

    def expected(self, population: int) -> float:
        """Return the size."""
        return float(self.size)

    def largest(self, population: int) -> int:
        """Return ``size``, or refuse a cohort larger than the population."""
        if self.size > population:
            raise ConfigurationError(
                f"A cohort of {self.size} clients was asked for, but there are only {population}. "
                f"Use Uniform({population}) at most, or All()."
            )
        return self.size


@dataclass(frozen=True)
class Poisson:
    """Each client by its own coin of probability ``rate``: the sampling that privacy accounting assumes.

    A cohort may be empty; such a round changes nothing.
    """

    rate: float

    def __post_init__(self) -> None:
        if not (isinstance(self.rate, float | int) and 0 < self.rate <= 1):
            raise ConfigurationError(f"Poisson.rate must lie in (0, 1]; found {self.rate!r}.")

    def cohort(self, population: int, key: Array) -> Array:
        """Return the clients whose coin fell."""
        return self.choose(population, lambda words: keys.bits(key, words))

    def choose(self, population: int, bits: Bits) -> Array:
        """Return the clients whose coin fell."""
        return np.nonzero(bits(population) < self.rate * _COINS)[0].astype(np.int64)

    def participation(self, population: int) -> Participation:
        """Return the coin's own probability, which has 32 bits and is never below ``rate``."""
        return Participation(Sampling.POISSON, math.ceil(self.rate * _COINS) / _COINS)

    def expected(self, population: int) -> float:
        """Return ``rate`` times the population."""
        return self.rate * population

    def largest(self, population: int) -> int:
        """Return the population: every coin may fall."""
        return population


@dataclass(frozen=True)
class Cyclic:
    """The clients in ``groups``, one group after the other: each client once in ``groups`` rounds.

    No chance is in it, so nobody has to be trusted with a draw; privacy then comes from noise alone
    (`CorrelatedNoise`). Clients that join shift the turns of nobody else: position ``i`` is in group ``i % groups``.
    """

    groups: int

    def __post_init__(self) -> None:
        whole(self, "groups")

    def turn(self, population: int, round: int) -> Array:
        """Return the group of a round, counted from 1."""
        return np.arange((round - 1) % self.groups, population, self.groups, dtype=np.int64)

    def cohort(self, population: int, key: Array) -> Array:
        """Return a group of chance: for whoever does not know the round's number."""
        return self.choose(population, lambda words: keys.bits(key, words))

    def choose(self, population: int, bits: Bits) -> Array:
        """Return a group of chance."""
        return self.turn(population, 1 + int(bits(1)[0]) % self.groups)

    def participation(self, population: int) -> Participation:
        """Return that each client has one turn in ``groups`` rounds."""
        return Participation(Sampling.IN_TURN, 1 / self.groups, self.groups)

    def expected(self, population: int) -> float:
        """Return the mean size of a group."""
        return population / self.groups

    def largest(self, population: int) -> int:
        """Return the size of the largest group, or refuse groups without a client."""
        if self.groups > population:
            raise ConfigurationError(
                f"{self.groups} groups of {population} clients would be empty ones. Use Cyclic({population}) at most."
            )
        return -(-population // self.groups)
