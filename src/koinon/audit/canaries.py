"""Canaries: clients that do not exist, in or out of a run by a fair coin, and the attack that tells which.

Andrew et al., "One-shot Empirical Privacy Estimation for Federated Learning", ICLR 2024. A canary's update is as long as
the channel allows and lies along one coordinate of its own, so canaries do not disturb each other (the Dirac canaries of
Nasr et al., "Tight Auditing of Differentially Private Machine Learning", USENIX Security 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from koinon import exact, tree
from koinon.core.execution import Plan, Runtime
from koinon.core.protocols import Aggregator, Needs, Offers
from koinon.core.types import Job, Partial, Purpose, Variables
from koinon.privacy.accounted import Accounted
from koinon.privacy.mechanism import Adjacency
from koinon.privacy.sampling import AccountedSampler, Sampling, Scheduled
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Observed:
    """An aggregator that shows what it is given: the sum with its noise, as it leaves the mechanism."""

    needs: ClassVar[Needs] = Needs.SUM
    aggregator: Aggregator
    show: Callable[[Tree], None]

    def values(self, cohort: int) -> int:
        """Return what the aggregator returns."""
        return self.aggregator.values(cohort)

    def finish(self, total: Tree, weight: float) -> Tree:
        """Show the total and return the aggregate."""
        self.show(total)
        return self.aggregator.finish(total, weight)


class CanaryRuntime:
    """A runtime whose exact sums hold canaries, and the attacker who reads the sums that are released.

    Everything between the two is the run's own: draws, noise, ledger, server. Run ``plan`` on it, which the
    inner runtime never sees. ``count`` canaries, or as many as the model has numbers; ``draw`` decides by chance.
    The attacker knows all updates but the canaries', as differential privacy allows him, and of the draws what is not
    counted on to be secret. A canary's score is the logarithm of how much likelier what was released is with it.
    """

    def __init__(self, inner: Runtime, plan: Plan, own: Accounted, count: int, draw: np.random.Generator) -> None:
        self._inner, self._plan, self._own, self._draw = inner, plan, own, draw
        assert own.bound is not None, "a mechanism of the channel has a bound"
        self._bound = own.bound
        self._count = count
        self._places: list[Array] = []  # of each leaf, in name order: where its canaries lie
        self._included, self._present = np.empty(0, bool), np.empty(0, bool)
        self._sent, self._clean = np.empty(0, np.int64), np.empty(0, np.int64)
        self._scores = np.empty(0)

    @property
    def plan(self) -> Plan:
        """The plan to run: the same, watched."""
        algorithm = self._plan.algorithm
        return replace(self._plan, algorithm=replace(algorithm, aggregator=Observed(algorithm.aggregator, self._read)))

    @property
    def offers(self) -> frozenset[Offers]:
        """What the inner runtime can do."""
        return self._inner.offers

    @property
    def engine(self) -> str:
        """The engine of the inner runtime."""
        return self._inner.engine

    @property
    def scores(self) -> Array:
        """The canaries' scores after the run, float64 ``[canaries]``."""
        return self._scores

    @property
    def included(self) -> Array:
        """Which canaries were in the run, bool ``[canaries]``."""
        return self._included

    def initial(self, plan: Plan, key: Array) -> Variables:
        """Return the model's first variables."""
        return self._inner.initial(self._plan, key)

    def round(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Return the round's total with the canaries that take part in it."""
        partial = self._inner.round(self._plan, job, states)
        if job.purpose is not Purpose.TRAIN:
            return partial
        total = partial.total if tree.leaves(partial.total) else exact.zero(job.broadcast)
        total = tree.map(np.array, total)  # a copy, to write in
        if not self._places:
            self._plant(total)
        self._present, self._clean = self._drawn(job.round), self._at_places(total)
        sent = np.split(np.where(self._present, self._sent, 0), np.cumsum([len(place) for place in self._places])[:-1])
        for leaf, place, own in zip(tree.leaves(total), self._places, sent, strict=True):
            leaf.reshape(-1)[place] += own
        return replace(partial, total=total)

    def close(self) -> None:
        """Nothing is held: whoever opened the inner runtime closes it."""

    def _plant(self, total: Tree) -> None:
        ends = np.cumsum([np.size(leaf) for leaf in tree.leaves(total)])
        chosen = np.sort(self._draw.choice(ends[-1], size=min(self._count, int(ends[-1])), replace=False))
        cuts = np.searchsorted(chosen, ends)
        self._places = [part - (end - np.size(leaf)) for part, end, leaf in
                        zip(np.split(chosen, cuts[:-1]), ends, tree.leaves(total), strict=True)]  # fmt: skip
        self._included = self._draw.random(len(chosen)) < 0.5
        amount = int(self._bound * exact.SCALE)
        self._sent = np.where(self._included, amount, -amount if self._replaced else 0)
        self._scores = np.zeros(len(chosen))

    @property
    def _replaced(self) -> bool:
        """Whether a canary that is out is replaced by its opposite, because the claim is about replacing a client."""
        return self._own.event.adjacency is Adjacency.REPLACE_ONE

    def _drawn(self, round: int) -> Array:
        """Return which canaries a round would draw: each shares the fate of a client in a draw like the run's own."""
        sampler, population = self._plan.algorithm.sampler, len(self._plan.data)
        assert isinstance(sampler, AccountedSampler), "the algorithm's check refuses every other"
        drawn = []
        for _ in range(-(-len(self._included) // population)):
            if isinstance(sampler, Scheduled):
                chosen = sampler.turn(population, round)
            else:
                chosen = sampler.choose(population, self._bits)
            drawn.append(np.isin(np.arange(population), chosen))
        return np.concatenate(drawn)[: len(self._included)]

    def _bits(self, count: int) -> Array:
        return self._draw.integers(1 << 32, size=count, dtype=np.uint32)

    def _at_places(self, total: Tree) -> Array:
        leaves = zip(tree.leaves(total), self._places, strict=True)
        return np.concatenate([np.reshape(leaf, -1)[place] for leaf, place in leaves])

    def _read(self, total: Tree) -> None:
        """Add what a released sum tells of each canary to its score."""
        moved = (self._at_places(total) - self._clean) / (self._bound * exact.SCALE)
        middle, distance = (0.0, 2.0) if self._replaced else (0.5, 1.0)
        taking_part = (moved - middle) / distance / self._own.event.multiplier**2
        secret = self._own.participation.sampling is Sampling.POISSON
        rate = np.full(len(moved), self._own.participation.rate) if secret else self._present.astype(np.float64)
        with np.errstate(divide="ignore"):  # the logarithm of 0 is right
            self._scores = self._scores + np.logaddexp(np.log1p(-rate), np.log(rate) + taking_part)
