"""Where an axis begins, ends and has its ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A linear map from data ``[low, high]`` to the picture ``[start, end]``, with ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Return where ``value`` lies in the picture."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def label(self, tick: float) -> str:
        """Return a tick with as many digits as the distance between ticks needs."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick) or 1.0
        size = max(abs(self.low), abs(self.high))
        if size >= 1e5 or step < 1e-4:
            return f"{tick:.3g}"
        return f"{tick + 0.0:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def axis(values: Iterable[float], start: float, end: float, *, count: int = 5, whole: bool = False) -> Axis:
    """Return an axis around the finite ``values`` with about ``count`` ticks at 1, 2 or 5 times a power of ten.

    ``whole`` keeps ticks at whole numbers and leaves no room at either end, as rounds want it.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = 0.0 if whole else 0.06 * (high - low)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        room = 0.5 if whole else 0.05 * abs(low) or 1.0
    low, high = low - room, high + room
    return Axis(low, high, start, end, _ticks(low, high, count, whole=whole))


def _ticks(low: float, high: float, count: int, *, whole: bool) -> tuple[float, ...]:
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(i * step for i in range(first, last + 1))
