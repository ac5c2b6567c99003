"""Runs that rest because too few have answered: said once, when it begins, and again when it is over."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from koinon.fleet.service import log
from koinon.fleet.service.house import ServedRun
from koinon.fleet.service.status import resting


class Rests:
    """Which runs rest, as was said last."""

    def __init__(self, runs: Mapping[str, ServedRun]) -> None:
        self._runs, self._resting = runs, set[str]()

    def look(self) -> None:
        """Log what is new."""
        for key, served in self._runs.items():
            waits_for = resting(served)
            if (waits_for is not None) is (key in self._resting):
                continue
            self._resting ^= {key}
            if waits_for is None and _stands(served):
                continue
            line = f"{served.name} goes on" if waits_for is None else f"{served.name} rests. It waits for {waits_for}"
            level = logging.INFO if waits_for is None else logging.WARNING
            log.tell("rests", line, level=level, run=key, name=served.name, waits_for=waits_for)


def _stands(served: ServedRun) -> bool:
    """Return whether a run does not go on because its operator, or a fault, has stopped it: that is said elsewhere."""
    ended = served.run.ended
    return served.run.snapshot()[0].paused if ended is None else ended["state"] != "finished"
