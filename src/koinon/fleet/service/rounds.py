"""A run's finished rounds, for those who look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from koinon.core.events import RoundRecord
from koinon.core.types import Purpose
from koinon.report.finite import finite

_SHOWN_ROUNDS = 1000


class Rounds:
    """The records of every finished round, in order."""

    def __init__(self, records: Iterable[RoundRecord] = ()) -> None:
        self._records: list[RoundRecord] = []
        self._unjudged: str | None = None  # why there was no evaluation, the last time that there was none
        for record in records:
            self.add(record)

    def add(self, record: RoundRecord) -> str | None:
        """Keep a round; one that was lost to a power cut and done again takes the place of the old.

        Return why its evaluation has no result, if that is not what it was the last time.
        """
        while self._records and self._records[-1].round >= record.round:
            self._records.pop()
        self._records.append(record)
        before, self._unjudged = self._unjudged, record.void.get(Purpose.EVALUATE.value, self._unjudged)
        return None if self._unjudged == before else self._unjudged

    def until(self, round: int) -> tuple[RoundRecord, ...]:
        """Return the rounds up to one."""
        return tuple(record for record in self._records if record.round <= round)

    def shown(self) -> list[dict[str, Any]]:
        """Return the last 1000 as JSON, where a figure that is not finite is None."""
        return [finite(record.to_json()) for record in self._records[-_SHOWN_ROUNDS:]]
