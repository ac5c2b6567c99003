"""Rounds without a result, one after the other: how many, for want of whom, and what is said of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koinon.core.events import RoundRecord
from koinon.core.types import Purpose
from koinon.fleet.coordinator.machine import SILENT

UNWILLING = "did not help to open the sum: "
"""What the reason begins with of a client that has said why it does not."""
_MOST = 3  # after which the run rests
_NAMED = 5


@dataclass(frozen=True)
class Voids:
    """The rounds void for want of somebody since the last with a result, and whom the last of them lacked: silent, or unwilling."""

    count: int = 0
    missing: tuple[str, ...] = ()

    def after(self, record: RoundRecord) -> Voids:
        """Return what it becomes with a finished round."""
        if Purpose.TRAIN.value not in record.void:
            return Voids()
        lacked = tuple(name for name, why in record.lost.items() if why == SILENT or why.startswith(UNWILLING))
        return Voids(self.count + 1, lacked) if lacked else self  # chance drew too few: that says nothing of anybody

    @property
    def awaited(self) -> tuple[str, ...]:
        """The parties that the next round waits for."""
        return self.missing if self.count >= _MOST else ()


def void_reason(silent: Sequence[str], unwilling: Sequence[str], least: int) -> str:
    """Return why a stage has no result, for people.

    ``silent`` and ``unwilling``, who have said that they could not go on, are parties' names, ``least`` how many had to stay.
    """
    parts = [f"{_shown(silent)} fell silent"] if silent else []
    parts += [f"{_shown(unwilling)} did not go on and said why"] if unwilling else []
    why = ", and ".join(parts) or "too few were here"
    return f"{why} before the sum was opened, which takes {least} clients: nothing of it is known"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if names[_NAMED:] else "")
