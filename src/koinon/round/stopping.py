"""When a run ends: a target, convergence, rounds, wall time, or a budget that a part declares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from koinon.errors import ConfigurationError
from koinon.metrics import lower_is_better


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Ends the run at whichever comes first.

    ``target=("accuracy", 0.95)`` is reached at or past the figure (at or below it for a loss).
    ``patience`` rounds without an improvement of ``monitor`` by more than ``minimum_change`` is
    convergence. ``seconds`` is wall time over all sessions of a run. ``monitor=None`` watches the held-out
    loss, or the training loss where nothing is held out.
    """

    rounds: int = 100
    target: tuple[str, float] | None = None
    patience: int | None = None
    minimum_change: float = 0.0
    monitor: str | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.rounds, int) and self.rounds >= 0):
            raise ConfigurationError(f"Stop.rounds must be a whole number from 0; found {self.rounds!r}.")
        if self.patience is not None and self.patience < 1:
            raise ConfigurationError(f"Stop.patience must be at least 1 round; found {self.patience!r}.")

    @property
    def named(self) -> tuple[str, ...]:
        """The figures that are watched by name."""
        return tuple(name for name in (self.monitor, self.target[0] if self.target else None) if name is not None)


@dataclass(frozen=True)
class Watch:
    """How far the monitored figure has come: part of a run's journal."""

    best: float | None = None
    best_round: int = 0
    anchor: float | None = None  # the last figure that counted as an improvement
    stale: int = 0  # evaluated rounds since
    reached: str | None = None  # why the run is to end

    def seen(self, stop: Stop, round: int, figures: dict[str, float]) -> Watch:
        """Return the watch after a round's figures."""
        name = monitored(stop, figures)
        best, best_round, anchor, stale = self.best, self.best_round, self.anchor, self.stale
        value = figures.get(name, math.nan)
        sign = -1.0 if lower_is_better(name) else 1.0
        if math.isfinite(value):
            if best is None or sign * value > sign * best:
                best, best_round = value, round
            if anchor is None or sign * (value - anchor) > stop.minimum_change:
                anchor, stale = value, 0
            else:
                stale += 1
        return Watch(best, best_round, anchor, stale, self._reason(stop, name, figures, stale))

    def again(self, stop: Stop, figures: dict[str, float]) -> Watch:
        """Return the watch of a run that goes on, perhaps under another ``stop``, after a round's figures."""
        known = all(name in figures for name in stop.named)
        reached = self._reason(stop, monitored(stop, figures), figures, self.stale) if known else None
        return replace(self, reached=reached)

    @staticmethod
    def _reason(stop: Stop, monitor: str, figures: dict[str, float], stale: int) -> str | None:
        if stop.target is not None:
            name, goal = stop.target
            if name not in figures:
                raise ConfigurationError(
                    f"The target watches {name!r}, but a round has only {', '.join(sorted(figures))}. Name one of these."
                )
            value = figures[name]
            if value <= goal if lower_is_better(name) else value >= goal:
                return f"target: {name} {value:.4g} reached {goal:g}"
        if stop.patience is not None and stale >= stop.patience:
            return f"converged: {monitor} has not improved by more than {stop.minimum_change:g} for {stale} rounds"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return dict(self.__dict__)


def monitored(stop: Stop, figures: dict[str, float]) -> str:
    """Return the name of the figure that patience and best-model selection watch."""
    if stop.monitor is not None:
        if stop.monitor not in figures:
            raise ConfigurationError(
                f"Stop.monitor is {stop.monitor!r}, but a round has only {', '.join(sorted(figures))}. Name one of these."
            )
        return stop.monitor
    return next((name for name in ("loss", "test_loss") if name in figures), "train_loss")
