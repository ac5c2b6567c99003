"""The one door through which a run's private sums leave: no release without its entry in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from koinon.core.algorithm import Algorithm
from koinon.core.execution import Plan
from koinon.core.protocols import Dataset
from koinon.errors import ConfigurationError
from koinon.privacy.accountant import composed, require, rounds_within
from koinon.privacy.accounted import Accounted, accounted, all_accounted
from koinon.privacy.budget import PrivacyBudget
from koinon.privacy.ledger import Entry, Ledger, Scope, Spent
from koinon.privacy.mechanism import CentralMechanism, DistributedMechanism, Noise
from koinon.privacy.random_bits import KEY_BYTES, PrivacyKeys, RandomStream
from koinon.privacy.sampling import AccountedSampler, Scheduled
from koinon.privacy.statement import PrivacyStatement, delta_of, statement
from koinon.tree import Array, Tree


def releases(
    plan: Plan, keys: Callable[[], PrivacyKeys], budget: PrivacyBudget | None, ledger: Path | None
) -> Releases | None:
    """Return the door of a run whose algorithm has been checked; None where neither channel nor work adds noise.

    ``ledger`` is where entries go if the budget names no ledger; None is memory, for a run that nobody keeps.
    Raises StoreError for a ledger of something else, UnsupportedError without ``koinon[privacy]``, ConfigurationError
    for a budget of a run that has nothing to count.
    """
    counted = all_accounted(plan.algorithm, len(plan.data))
    if not counted:
        if budget is not None:
            raise ConfigurationError(
                f"{budget!r} was asked for, but no noise is added that can be counted, so there is nothing to keep within it. "
                "Add Clip and GaussianNoise to the channel, or work=PrivateTraining(...), or drop the budget."
            )
        return None
    require()
    own = counted[0]
    book = Ledger(ledger if budget is None or budget.ledger is None else Path(budget.ledger), scope(plan.data, own))
    book.refresh()
    return Releases(plan.algorithm, own, keys(), book, budget)


def scope(data: Dataset, own: Accounted) -> Scope:
    """Return what a ledger of ``own`` is about."""
    return Scope(data.holdings() if isinstance(data, Held) else data.fingerprint(), own.event.adjacency, own.unit)


@runtime_checkable
class Held(Protocol):
    """A dataset that tells who holds what apart from how it is split."""

    def holdings(self) -> str:
        """Return a SHA-256 over clients and their examples."""


class Releases:
    """A run's noise, its secret draws, and what they cost. One object for the whole run, whoever drives it."""

    def __init__(
        self, algorithm: Algorithm, own: Accounted, keys: PrivacyKeys, ledger: Ledger, budget: PrivacyBudget | None
    ) -> None:
        self._own, self._keys, self._ledger, self._budget = own, keys, ledger, budget
        self._algorithm, self._sampler = algorithm, algorithm.sampler
        self._written: set[int] = set()
        self._remembered = 0  # finished rounds that are known to be in the ledger
        self._noise = Noise(lambda round: RandomStream(keys.noise, round).normals)
        self._room: tuple[Spent, int] = ({}, 0)  # what was spent when it was counted, and how many releases may follow

    @property
    def central(self) -> bool:
        """Whether it is the server that adds the noise."""
        return isinstance(self._own.mechanism, CentralMechanism)

    @property
    def charged(self) -> int:
        """How many releases the ledger holds, of all runs about the data set."""
        return len(self._ledger)

    @property
    def spent(self) -> Spent:
        """What the ledger holds: every release, and how often."""
        return self._ledger.spent

    def expected(self, population: int) -> float:
        """Return what a sum is divided by: the cohort's expected size, which no client can change."""
        assert isinstance(self._sampler, AccountedSampler), "the algorithm's check refuses every other"
        return self._sampler.expected(population)

    def cohort(self, population: int, round: int) -> Array:
        """Return a round's clients, drawn with the run's secret key, or those whose turn it is.

        Raises CompositionError for more clients than can be added up: a fleet's become more.
        """
        accounted(self._algorithm, population)
        if isinstance(self._sampler, Scheduled):
            return self._sampler.turn(population, round)
        assert isinstance(self._sampler, AccountedSampler), "the algorithm's check refuses every other"
        return self._sampler.choose(population, RandomStream(self._keys.cohort, round).bits)

    def begin(self, round: int, planned: int) -> str | None:
        """Write a round down before it begins, and return None; or return why it would exceed the budget.

        ``planned`` is how many rounds are to come at most, this one included. Where clients come in turn, a client is
        in one of so many rounds, and these have one line together.
        """
        most = self._own.turns(planned) * self._own.times
        reason = self._ledger.spend(self.entry(round), lambda spent: self._refusal(spent, most))
        if reason is None:
            self._written.add(round)
        return reason

    def remember(self, rounds: int) -> None:
        """Write down all ``rounds`` that this run has behind it and this ledger does not have.

        A run may go on with a budget that names another ledger than it began with.
        """
        for round in range(self._remembered + 1, rounds + 1):
            self._ledger.spend(self.entry(round), lambda _: None)
        self._remembered = max(self._remembered, rounds)

    def entry(self, round: int) -> Entry:
        """Return a round's line of the ledger: that of the first of those which have one together."""
        first = round - (round - 1) % self._own.participation.separation
        secret = self._keys.secret and self._own.secret
        return Entry(self._keys.run, first, self._own.event, secret, self._own.times)

    def release(self, round: int, total: Tree) -> Tree:
        """Return a round's exact total with its noise. Raises ConfigurationError for a round that is not in the ledger."""
        self._check_written(round)
        assert isinstance(self._own.mechanism, CentralMechanism), "only a central mechanism has a release"
        assert self._own.bound is not None, "a mechanism of the channel has a bound"
        return self._own.mechanism.release(total, self._own.bound, round, self._noise)

    def stand_in(self, round: int, total: Tree, clients: int) -> Tree:
        """Return a simulated round's exact total of so many clients as their messages would have left it.

        That is with noise where the clients add it themselves. Raises ConfigurationError for a round that is not in the ledger.
        """
        mechanism = self._own.mechanism
        if not isinstance(mechanism, DistributedMechanism):
            return total
        self._check_written(round)
        assert self._own.bound is not None, "a mechanism of the channel has a bound"
        key = RandomStream(self._keys.noise, round).words(KEY_BYTES // 8).tobytes()
        return mechanism.stand_in(total, self._own.bound, clients, key)

    def _check_written(self, round: int) -> None:
        if round not in self._written:
            raise ConfigurationError(
                f"A sum was to be released, but round {round} is not in the ledger. Call begin({round}, ...) first."
            )

    def statement(self, population: int) -> PrivacyStatement:
        """Return what may be claimed of everything in the ledger so far."""
        delta = delta_of(self._own, population) if self._budget is None else self._budget.delta
        return statement(self._own, 0, delta, ledger=self._ledger)

    def _refusal(self, spent: Spent, most: int) -> str | None:
        """Return why no round may follow what is ``spent``, of the ``most`` releases that are to come."""
        if self._budget is None:
            return None
        (base, room), event, times = self._room, self._own.event, self._own.times
        since = sum(spent.values()) - sum(base.values())
        if since + times > room or {**base, event: base.get(event, 0) + since} != spent:
            room = rounds_within(spent, event, self._budget.epsilon, self._budget.delta, max(times, most))
            self._room, since = (spent, room), 0
        if since + times <= room:
            return None
        after = composed({**spent, event: spent.get(event, 0) + times}, self._budget.delta)
        return (
            f"one more round would bring epsilon to {after:.4g} at delta {self._budget.delta:.3g}; "
            f"the budget is {self._budget.epsilon:g}"
        )
