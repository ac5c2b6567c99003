"""What a step says under which the server learns a round's sum and nothing of what made it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from koinon.core.algorithm import Algorithm
from koinon.privacy.mechanism import DistributedMechanism


@runtime_checkable
class Hiding(Protocol):
    """A step under which updates, weights and metric sums are seen added up, and none of them by itself."""

    @property
    def largest_weight(self) -> int:
        """The largest weight of one client that there is room for."""

    @property
    def least(self) -> int:
        """The fewest clients whose sum may be known."""

    @property
    def fewest(self) -> int:
        """What ``least`` may be at the lowest."""

    @property
    def ideal(self) -> bool:
        """Whether a simulation computes what its messages would leave, and sends none."""

    def require(self) -> None:
        """Raise UnsupportedError unless what hides an update is installed where it is made."""

    def protection(self, *, roster: bool) -> str:
        """Return whom it protects from whom between institutions, with a signed roster or without, in a sentence."""


def hiding(algorithm: Algorithm) -> Hiding | None:
    """Return the step of an algorithm's channel that hides single updates, or None."""
    return next((step for step in algorithm.channel if isinstance(step, Hiding)), None)


def least_present(algorithm: Algorithm) -> int:
    """Return how many clients must be here for a round to open: as many as the schedule asks, and as a sum has at least."""
    step = hiding(algorithm)
    return algorithm.schedule.clients if step is None else max(algorithm.schedule.clients, step.least)


def simulated(algorithm: Algorithm) -> list[str]:
    """Return what is said, a line each, of steps that hide single updates where nobody is hidden from anybody."""
    step = hiding(algorithm)
    if step is None:
        return []
    said = (
        f"simulated: {step!r} hides nothing here, in one process; the sum is the one it would leave between institutions, "
        "and no figure of a single client is kept"
    )
    noise = next((own for own in algorithm.channel if isinstance(own, DistributedMechanism)), None)
    if noise is None or not step.ideal:
        return [said]
    how = (
        f"simulated: of {noise!r} the noise of all clients is drawn at once, of the very law of their sum, and the sum is rounded "
        "once, where each client rounds; simulate='protocol' lets each draw and round its own"
    )
    return [said, how]
