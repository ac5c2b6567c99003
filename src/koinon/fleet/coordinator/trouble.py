"""What keeps a run's store from being written, for as long as it lately did: a disk that is full is full for many calls."""

from __future__ import annotations

import logging
from collections.abc import Callable

_FRESH_SECONDS = 15.0  # participants and the driver try again every 5 s
_LOG = logging.getLogger("koinon.fleet")


class Trouble:
    """The last failure of one run's store. Notes may come from any thread."""

    def __init__(self, run: str, clock: Callable[[], float]) -> None:
        self._run, self._clock = run, clock
        self._last: tuple[str, float, bool] | None = None

    @property
    def text(self) -> str | None:
        """What went wrong, for people; None once it has not happened for a while."""
        last = self._last
        return last[0] if last is not None and self._clock() - last[1] < _FRESH_SECONDS else None

    @property
    def stops(self) -> bool:
        """Whether the run cannot go on for what went wrong."""
        return self.text is not None and self._last is not None and self._last[2]

    def note(self, message: str, *, stops: bool = True) -> None:
        """Note a failure; what goes on is logged once. One that ``stops`` the run is not hidden by one that does not."""
        if message != self.text:
            _LOG.error("run %s: %s", self._run, message)
        if stops or not self.stops:
            self._last = message, self._clock(), stops

    def over(self) -> None:
        """Forget what stopped the run: it goes on."""
        if self.stops:
            self._last = None
