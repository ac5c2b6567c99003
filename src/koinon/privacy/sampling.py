"""How a client comes to be in a round, as the accountant counts it and as the sampler draws it: one object says both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias, runtime_checkable

from koinon.tree import Array

Bits: TypeAlias = Callable[[int], Array]
"""Returns that many uniform uint32, fresh ones at every call."""


class Sampling(Enum):
    """The ways of drawing a cohort for which there is an analysis."""

    POISSON = "each client by its own coin, independent of all others"
    EVERYBODY = "every client in every round"
    FIXED_SIZE = "a cohort of fixed size, without replacement"
    IN_TURN = "the clients in turn, by no chance"


@dataclass(frozen=True)
class Participation:
    """A way of drawing, and the probability in (0, 1] with which a client is in a round.

    A client is in one of any ``separation`` rounds that follow each other, at most.
    """

    sampling: Sampling
    rate: float
    separation: int = 1


@runtime_checkable
class AccountedSampler(Protocol):
    """A sampler whose draws can be accounted."""

    def participation(self, population: int) -> Participation:
        """Return how :meth:`choose` draws, with the probability that it really has."""

    def expected(self, population: int) -> float:
        """Return the expected size of a cohort."""

    def choose(self, population: int, bits: Bits) -> Array:
        """Return sorted int64 positions of the clients of one round, from secret bits."""


@runtime_checkable
class Scheduled(Protocol):
    """A sampler that draws nothing: the round's number says who takes part."""

    def turn(self, population: int, round: int) -> Array:
        """Return sorted int64 positions of the clients of a round, counted from 1."""
