"""How the client's learning rate changes over the rounds: a factor, computed by the server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from koinon.core.ranges import positive, share, whole
from koinon.errors import ConfigurationError


class LearningRateSchedule(Protocol):
    """A factor on the client's learning rate, by round."""

    def factor(self, round: int) -> float:
        """Return the factor for a round, counted from 1."""


def check_schedule(schedule: object) -> None:
    """Refuse what is no schedule of a learning rate. Raises ConfigurationError."""
    if not hasattr(schedule, "factor"):
        raise ConfigurationError(
            f"The schedule of a client's work is its learning rate's, such as Exponential(0.99); found {schedule!r}. When a round opens and "
            "how long it lasts is the algorithm's: kn.replace(algorithm, schedule=kn.Synchronous(...))."
        )


@dataclass(frozen=True)
class Constant:
    """The same learning rate in every round."""

    def factor(self, round: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Exponential:
    """``decay ** ((round - 1) / every)``: McMahan et al. 2017 decay the rate by round."""

    decay: float = 0.99
    every: int = 1

    def __post_init__(self) -> None:
        positive(self, "decay")
        whole(self, "every")

    def factor(self, round: int) -> float:
        """Return the power."""
        return float(self.decay ** ((round - 1) / self.every))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to ``floor`` over ``rounds``, after a linear ``warm_up``.

    Loshchilov and Hutter, ICLR 2017.
    """

    rounds: int
    floor: float = 0.0
    warm_up: int = 0

    def __post_init__(self) -> None:
        whole(self, "rounds")
        whole(self, "warm_up", least=0)
        share(self, "floor")

    def factor(self, round: int) -> float:
        """Return the height of the curve; ``floor`` after its end."""
        if round <= self.warm_up:
            return round / (self.warm_up + 1)
        share = min(1.0, (round - 1 - self.warm_up) / max(1, self.rounds - self.warm_up))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * share))
