"""A run's finished rounds, for those who look."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from koinon.core.events import RoundRecord

_SHOWN_ROUNDS = 1000


class Rounds:
    """The records of every finished round, in order."""

    def __init__(self, records: Iterable[RoundRecord] = ()) -> None:
        self._records = list(records)

    def add(self, record: RoundRecord) -> None:
        """Keep a round; one that was lost to a power cut and done again takes the place of the old."""
        while self._records and self._records[-1].round >= record.round:
            self._records.pop()
        self._records.append(record)

    def until(self, round: int) -> tuple[RoundRecord, ...]:
        """Return the rounds up to one."""
        return tuple(record for record in self._records if record.round <= round)

    def shown(self) -> list[dict[str, Any]]:
        """Return the last 1000 as JSON, which has no word for a figure that is not finite: it becomes None."""
        rows = (record.to_json() for record in self._records[-_SHOWN_ROUNDS:])
        return [{name: value if _sayable(value) else None for name, value in row.items()} for row in rows]


def _sayable(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
