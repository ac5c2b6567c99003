"""What of an algorithm the accountant counts: who adds noise for whom, and what a round costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from koinon import exact
from koinon.core.algorithm import Algorithm
from koinon.errors import CompositionError
from koinon.privacy.hiding import Hiding, hiding
from koinon.privacy.mechanism import Event, Mechanism, Trust
from koinon.privacy.sampling import AccountedSampler, Participation, Sampling
from koinon.privacy.secure_sum.neighbours import Assumptions, honest_survivors

CLIENT, EXAMPLE = "client", "example"
_MARGIN = 1 - 1e-4  # float32 may find a norm longer than it is
_ALWAYS = Participation(Sampling.EVERYBODY, 1.0)


@runtime_checkable
class PrivateWork(Protocol):
    """Client work that is private by itself for each example, such as DP-SGD."""

    @property
    def trust(self) -> Trust:
        """Whom it protects from whom."""

    @property
    def sampling(self) -> str:
        """How examples come to be in a release, in words."""

    @property
    def releases(self) -> int:
        """How many releases a round makes."""

    @property
    def secret(self) -> bool:
        """Whether nobody can make its noise again."""

    def event(self, participation: Participation) -> Event:
        """Return what one release costs an example of a client that is drawn so."""


@dataclass(frozen=True)
class Accounted:
    """Who adds noise, how units come to be in a round, and one release as it touches a unit.

    ``bound`` is the L2 norm of an update at most, as a step of the channel finds it; None where the work is private.
    ``hidden`` is the step under which the coordinator sees no single update, if there is one, ``cohort`` the largest that
    may come, 0 while nobody knows.
    """

    mechanism: Mechanism | PrivateWork
    participation: Participation
    event: Event
    bound: float | None = None
    hidden: Hiding | None = None
    cohort: int = 0

    @property
    def unit(self) -> str:
        """Whom it protects."""
        return EXAMPLE if isinstance(self.mechanism, PrivateWork) else CLIENT

    @property
    def times(self) -> int:
        """How many releases a round makes."""
        return self.mechanism.releases if isinstance(self.mechanism, PrivateWork) else 1

    @property
    def secret(self) -> bool:
        """Whether nobody can make the noise again, as far as that is not a matter of the run's keys."""
        return not isinstance(self.mechanism, PrivateWork) or self.mechanism.secret

    def turns(self, rounds: int) -> int:
        """Return in how many of ``rounds`` rounds a unit may be."""
        return -(-rounds // self.participation.separation)

    @property
    def trust(self) -> str:
        """Whom a client has to trust, and with what."""
        if self.mechanism.trust is Trust.COORDINATOR and self.hidden is not None:
            return f"the coordinator sees the sum of a round without noise, by {self.hidden!r} no single update, and is trusted to add it"
        said = str(self.mechanism.trust.value)
        if self.mechanism.trust is Trust.SURVIVORS and self.cohort:
            honest = honest_survivors(self.cohort, Assumptions())
            return f"{said}: then {honest} honest ones survive of a cohort of {self.cohort:,}"
        return said

    @property
    def sampling(self) -> str:
        """How units come to be in a round, and what of that is counted, in words."""
        if isinstance(self.mechanism, PrivateWork):
            return self.mechanism.sampling
        if self.mechanism.trust is not Trust.COORDINATOR:
            return "counted as if every client took part in every round: the coordinator knows who does"
        how = self.participation.sampling
        said = {
            Sampling.POISSON: f", of probability {self.participation.rate:.4g}, from secret keys",
            Sampling.FIXED_SIZE: "; counted as if every client were in every round",
            Sampling.IN_TURN: f": each once in {self.participation.separation} rounds",
        }
        return f"{how.value}{said.get(how, '')}"


def accounted(algorithm: Algorithm, population: int) -> Accounted | None:
    """Return what the noise of a checked algorithm's channel is counted as; None where no step can be counted.

    Raises CompositionError where ``population`` clients may be too many to be added up exactly.
    """
    place = next((i for i, step in enumerate(algorithm.channel) if isinstance(step, Mechanism)), None)
    if place is None:
        return None
    mechanism, bound = algorithm.channel[place], algorithm.wires()[place][1].l2_bound
    assert isinstance(mechanism, Mechanism), "that is how it was found"
    assert bound is not None, "the algorithm's check refuses noise without a bound"
    participation = _ALWAYS
    if mechanism.trust is Trust.COORDINATOR:
        assert isinstance(algorithm.sampler, AccountedSampler), "the algorithm's check refuses every other"
        participation = algorithm.sampler.participation(population)
        _check_addable(mechanism, bound, algorithm.sampler.largest(population) if population else 1)
    cohort = algorithm.sampler.largest(population) if population else 0
    return Accounted(mechanism, participation, mechanism.event(participation), bound, hiding(algorithm), cohort)


def accounted_work(algorithm: Algorithm) -> Accounted | None:
    """Return what the noise of the clients' own work is counted as, for one that is in every round; None without any."""
    work = algorithm.work
    return Accounted(work, _ALWAYS, work.event(_ALWAYS)) if isinstance(work, PrivateWork) else None


def all_accounted(algorithm: Algorithm, population: int) -> tuple[Accounted, ...]:
    """Return both, as far as there are any. A run's ledger and budget are for the first."""
    return tuple(own for own in (accounted(algorithm, population), accounted_work(algorithm)) if own is not None)


def _check_addable(mechanism: Mechanism, bound: float, largest: int) -> None:
    """Refuse cohorts in which one client more could be one too many for all others, which no noise would cover."""
    room = exact.limit(largest, 1) * _MARGIN
    if bound > room:
        raise CompositionError(
            f"{mechanism!r} is for updates of a norm of up to {bound:.4g}, but a round may have {largest:,} clients, and the "
            f"exact sum then takes a norm of {room:.4g} at most: all would be refused. Clip to a smaller norm."
        )
