"""What a private run has cost its clients so far, for those who look."""

from __future__ import annotations

import threading
from collections.abc import Callable

from koinon.privacy.releases import Releases


class Charged:
    """The statement after the rounds in the ledger. It is counted in a thread of its own, which takes a second."""

    def __init__(self, door: Releases, population: Callable[[], int]) -> None:
        self._door, self._population = door, population
        self._said: tuple[str, ...] = ("What the rounds so far cost is being counted.",)
        self._rounds = -1
        self._counting = threading.Lock()

    def lines(self) -> tuple[str, ...]:
        """Return the newest statement there is, and have a newer one made if rounds have come since."""
        rounds = self._door.charged
        if rounds != self._rounds and self._counting.acquire(blocking=False):
            threading.Thread(target=self._count, args=(rounds,), name="privacy statement", daemon=True).start()
        return self._said

    def wait(self) -> None:
        """Return when the newest statement is there."""
        self.lines()
        with self._counting:
            pass

    def _count(self, rounds: int) -> None:
        try:
            self._said = tuple(self._door.statement(self._population()).lines())
            self._rounds = rounds
        finally:
            self._counting.release()
