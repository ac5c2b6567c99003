"""An algorithm is a frozen record naming one of each part. Its check runs before a byte moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from koinon.core.protocols import Aggregator, ClientWork, Needs, Offers, Private, Sampler, Server, Transform
from koinon.core.ranges import positive, whole
from koinon.core.wire import Wire
from koinon.errors import CompositionError, ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Synchronous:
    """Every round waits for its whole cohort, and between institutions no longer than a deadline.

    A round opens when ``clients`` are present; its judging waits for as many, but no longer than a deadline.
    ``over_selection`` times as many clients are asked as the sampler draws, and as many updates as it draws are
    enough. When the time is up, the share ``quorum`` of them settles the round; with fewer it is asked for again,
    ``retries`` times, and then the run pauses until someone comes back. The time is learnt from earlier rounds,
    between ``shortest`` and ``longest`` seconds. In simulation every client answers, and none of this shows.
    Bonawitz et al. 2019, "Towards Federated Learning at Scale", section 2.2.
    """

    clients: int = 2
    quorum: float = 0.5
    over_selection: float = 1.0
    shortest: float = 30.0
    longest: float = 600.0
    retries: int = 1

    def __post_init__(self) -> None:
        whole(self, "clients")
        whole(self, "retries", least=0)
        positive(self, "quorum", "over_selection", "shortest", "longest")
        if self.quorum > 1 or self.over_selection < 1 or self.shortest > self.longest:
            raise ConfigurationError(
                "Synchronous takes a quorum of at most 1, an over_selection of at least 1 and shortest <= longest; "
                f"found {self!r}."
            )


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """Who does what in a round. ``dataclasses.replace`` makes variants; factories in ``koinon.algorithms``."""

    name: str
    work: ClientWork[Any]
    server: Server
    aggregator: Aggregator
    sampler: Sampler
    channel: tuple[Transform, ...] = ()
    schedule: Synchronous = field(default_factory=Synchronous)

    def wires(self) -> list[tuple[str, Wire]]:
        """Return the facts before the channel and after every step of it, with the step's repr."""
        steps = [("update", Wire())]
        for transform in self.channel:
            steps.append((repr(transform), transform.check(steps[-1][1])))
        return steps

    @property
    def private(self) -> tuple[Private, ...]:
        """The steps that make updates private: with one, every client weighs 1."""
        return tuple(step for step in self.channel if isinstance(step, Private))

    def check(self, offers: frozenset[Offers]) -> Wire:
        """Return the facts of what the server receives, or raise CompositionError."""
        wires, needs = self.wires(), self.aggregator.needs
        wire, coded = wires[-1][1], next((name for name, after in wires if not after.additive), None)
        reads = f"{coded} is decoded update by update" if coded else f"{self.aggregator!r} reads {needs.value}"
        if (by := wire.opaque_by) is not None and (coded is not None or needs is not Needs.SUM):
            why, other = f"{reads}, but {by} shows the server only the sum of all", "no codec" if coded else "Mean()"
            raise CompositionError(f"{why}. Use {other}, or drop {by}.")
        for by, offer, what in (
            (None if needs is Needs.SUM else repr(self.aggregator), Offers.APART, f"reads {needs.value}"),
            (wire.opaque_by, Offers.HANDSHAKE, "exchanges messages with the clients"),
            (wire.stateful_by, Offers.CLIENT_STATE, "keeps state on each client"),
        ):
            if by is not None and offer not in offers:
                other = "Mean()" if offer is Offers.APART else f"drop {by}"
                why = f"{by} {what}, but this runtime offers no {offer.value}"
                raise CompositionError(f"{why}. Use one that does (local, processes), or {other}.")
        for step in self.private:
            step.check_algorithm(self)
        return wire
