"""What may be claimed of a run's privacy, computed from what runs, with everything the claim rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from koinon import exact
from koinon.core.algorithm import Algorithm
from koinon.errors import CompositionError
from koinon.privacy.accountant import composed, composed_renyi
from koinon.privacy.ledger import UNIT
from koinon.privacy.mechanism import Event, Mechanism, Trust
from koinon.privacy.sampling import AccountedSampler, Participation, Sampling

NOT_COVERED = (
    "the sums behind the figures (losses, accuracies, examples), which carry no noise, and when to stop and which round is "
    + "best, where they decide it",
    "who took part, who was refused and why, and how long it took",
)
_MARGIN = 1 - 1e-4  # float32 may find a norm longer than it is


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """What a run's releases promise each ``unit``, and on what conditions. Without a guarantee, ``why_not`` says why.

    ``epsilon`` is by loss distributions, ``epsilon_renyi`` by Renyi divergences, both at ``delta``, after
    ``rounds`` in which one ``unit`` may have taken part.
    """

    guarantee: bool
    why_not: str
    mechanism: str
    unit: str
    epsilon: float
    epsilon_renyi: float
    delta: float
    rounds: int
    adjacency: str
    sampling: str
    trust: str
    not_covered: tuple[str, ...] = NOT_COVERED

    @property
    def sentence(self) -> str:
        """The claim in one sentence."""
        if not self.guarantee:
            return f"no guarantee: {self.why_not}"
        rounds = "1 round" if self.rounds == 1 else f"{self.rounds:,} rounds"
        return (
            f"epsilon {self.epsilon:.4g} at delta {self.delta:.3g} for each {self.unit} after {rounds} it may be in "
            f"(by Renyi divergences {self.epsilon_renyi:.4g})"
        )

    def lines(self) -> list[str]:
        """Return the claim and its conditions, a line each."""
        return [
            self.sentence,
            f"by {self.mechanism}",
            f"adjacent: {self.adjacency} {self.unit}",
            f"drawn: {self.sampling}",
            f"trust: {self.trust}",
            *(f"not covered: {what}" for what in self.not_covered),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {**asdict(self), "not_covered": list(self.not_covered)}


@dataclass(frozen=True)
class Accounted:
    """What of an algorithm the accountant counts: the step that adds noise, how clients are drawn, a round's event.

    ``bound`` is the L2 norm of an update at most, as that step finds it.
    """

    mechanism: Mechanism
    participation: Participation
    event: Event
    bound: float

    def charges(self, rounds: int) -> int:
        """Return how often ``rounds`` rounds are charged: once for all the rounds in which a client has one turn."""
        return -(-rounds // self.participation.separation)


def accounted(algorithm: Algorithm, population: int) -> Accounted | None:
    """Return what is counted in every round of an algorithm that was checked; None where no step can be counted.

    Raises CompositionError where ``population`` clients may be too many to be added up exactly.
    """
    place = next((i for i, step in enumerate(algorithm.channel) if isinstance(step, Mechanism)), None)
    if place is None:
        return None
    mechanism, bound = algorithm.channel[place], algorithm.wires()[place][1].l2_bound
    assert isinstance(mechanism, Mechanism), "that is how it was found"
    assert bound is not None, "the algorithm's check refuses noise without a bound"
    if mechanism.trust is Trust.NOBODY:
        participation = Participation(Sampling.EVERYBODY, 1.0)
    else:
        assert isinstance(algorithm.sampler, AccountedSampler), "the algorithm's check refuses every other"
        participation = algorithm.sampler.participation(population)
        _check_addable(mechanism, bound, algorithm.sampler.largest(population) if population else 1)
    return Accounted(mechanism, participation, mechanism.event(participation), bound)


def _check_addable(mechanism: Mechanism, bound: float, largest: int) -> None:
    """Refuse cohorts in which one client more could be one too many for all others, which no noise would cover."""
    room = exact.limit(largest, 1) * _MARGIN
    if bound > room:
        raise CompositionError(
            f"{mechanism!r} is for updates of a norm of up to {bound:.4g}, but a round may have {largest:,} clients, and the "
            f"exact sum then takes a norm of {room:.4g} at most: all would be refused. Clip to a smaller norm."
        )


@runtime_checkable
class PrivateWork(Protocol):
    """Client work that is private by itself, such as DP-SGD on each client's own examples."""

    def statement(self, rounds: int) -> PrivacyStatement:
        """Return what it promises after ``rounds`` rounds of one client."""


def statement_of_work(algorithm: Algorithm, rounds: int) -> PrivacyStatement | None:
    """Return what the clients' own work promises; None where it adds no noise."""
    return algorithm.work.statement(rounds) if isinstance(algorithm.work, PrivateWork) else None


def statement(
    own: Accounted, rounds: int, delta: float, *, secret: bool = True, before: Mapping[Event, int] | None = None
) -> PrivacyStatement:
    """Return what ``rounds`` rounds promise beside all that was released ``before``."""
    events = {**(before or {})}
    events[own.event] = events.get(own.event, 0) + own.charges(rounds)
    spent, renyi = composed(events, delta), composed_renyi(events, delta)
    why_not = ""
    if not secret:
        why_not = "a test mode made the keys from a seed, so anybody can take the noise away"
    elif not math.isfinite(spent):
        why_not = f"epsilon is beyond what can be counted. Raise the noise of {own.mechanism!r}"
    elif renyi < 0.99 * spent - 1e-3:
        why_not = f"two accountants disagree: {spent:.4g} by loss distributions, {renyi:.4g} by Renyi divergences"
    return PrivacyStatement(
        guarantee=not why_not,
        why_not=why_not,
        mechanism=repr(own.mechanism),
        unit=UNIT,
        epsilon=spent,
        epsilon_renyi=renyi,
        delta=delta,
        rounds=sum(events.values()),
        adjacency=own.event.adjacency.value,
        sampling=_drawn(own),
        trust=own.mechanism.trust.value,
    )


def _drawn(own: Accounted) -> str:
    if own.mechanism.trust is Trust.NOBODY:
        return "counted as if every client took part in every round: the coordinator knows who does"
    if own.participation.sampling is Sampling.POISSON:
        return f"{own.participation.sampling.value}, of probability {own.participation.rate:.4g}, from secret keys"
    if own.participation.sampling is Sampling.FIXED_SIZE:
        return f"{own.participation.sampling.value}; counted as if every client were in every round"
    if own.participation.sampling is Sampling.IN_TURN:
        return f"{own.participation.sampling.value}: each once in {own.participation.separation} rounds"
    return str(own.participation.sampling.value)
