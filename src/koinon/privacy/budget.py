"""How much privacy a data set may be charged, and where that is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koinon.core.ranges import positive
from koinon.errors import ConfigurationError

DELTA = 1e-5


@dataclass(frozen=True, kw_only=True)
class PrivacyBudget:
    """End a run before the round that would bring its data set beyond ``epsilon`` at ``delta``.

    ``ledger`` is the file that counts every release about the data set, of this run and of all others that name it;
    without one each run is counted alone, in its own folder. ``delta`` should be well below one over the clients.
    """

    epsilon: float
    delta: float = DELTA
    ledger: str | Path | None = None

    def __post_init__(self) -> None:
        positive(self, "epsilon", "delta")
        if self.delta >= 1:
            raise ConfigurationError(f"PrivacyBudget.delta must lie in (0, 1); found {self.delta!r}.")


def usual_delta(population: int) -> float:
    """Return the delta of a statement where no budget says one: 1e-5, or less for more than 30,000 clients."""
    return min(DELTA, population**-1.1) if population else DELTA
