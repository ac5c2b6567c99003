"""A clipping norm that follows a quantile of the updates' norms, found privately.

Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from koinon.core.ranges import positive
from koinon.errors import ConfigurationError

CLIPPING = "clipping"
"""The branch of the broadcast that holds the norm, and of the update that holds a client's answer."""


@dataclass(frozen=True, kw_only=True)
class QuantileNorm:
    """From ``initial`` towards the norm that a ``quantile`` of the clients stay within, by ``learning_rate`` a round.

    Each client says whether it stayed within: plus or minus half of ``share``, beside an update that is divided by the
    norm. So a client moves the sum by ``sqrt(1 + share**2 / 4)`` at most, and one Gaussian covers both: to find the
    quantile costs no privacy of its own, but that much more noise.
    """

    initial: float = 0.1
    quantile: float = 0.5
    learning_rate: float = 0.2
    share: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "initial", "quantile", "learning_rate", "share")
        if self.quantile >= 1:
            raise ConfigurationError(f"QuantileNorm.quantile must lie in (0, 1); found {self.quantile!r}.")

    @classmethod
    def of_cohort(cls, expected: float, multiplier: float) -> Self:
        """Return the paper's choice: noise of ``expected / 20`` clients on the count, under a noise ``multiplier``.

        Raises ConfigurationError where the cohort is so small that the count alone would need more noise.
        """
        count_noise = expected / 20
        left = multiplier**-2 - (2 * count_noise) ** -2
        if left <= 0:
            raise ConfigurationError(
                f"With {expected:g} expected clients the count of those within the norm needs more noise than the "
                f"multiplier {multiplier:g} leaves. Ask for more than {10 * multiplier:g} clients, or use Clip."
            )
        return cls(share=left**-0.5 / count_noise)

    @property
    def bound(self) -> float:
        """How far one client moves the sum of updates and answers."""
        return math.sqrt(1 + self.share**2 / 4)

    def following(self, norm: float, answer: float) -> float:
        """Return the next norm after a mean ``answer``: geometric steps, so it stays above 0.

        A step is by a factor of ``e`` at most: an answer that no honest client gives neither ends nor freezes a run.
        """
        step = self.learning_rate * (answer / self.share + 0.5 - self.quantile)
        return norm * math.exp(-max(-1.0, min(1.0, step)))


@runtime_checkable
class FollowsNorm(Protocol):
    """A server that keeps such a norm and broadcasts it."""

    @property
    def norm(self) -> QuantileNorm:
        """How the norm moves."""
