"""What every tracker has in common: a thread of its own, and no way to hold up or to end a run.

The run only puts events into a queue. Whoever takes them may be slow, hang or fail: the tracker is dropped with
one warning, and the run goes on. What was not tracked is made up for when the run is resumed, because a tracked run
begins with all its past rounds.
"""

from __future__ import annotations

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from queue import Empty, Full, Queue
from threading import Thread

from koinon.core.events import RoundFinished, RoundRecord, RunFinished, RunStarted
from koinon.errors import UnsupportedError
from koinon.report.terminal import printable

Event = RunStarted | RoundFinished | RunFinished

CLOSING_SECONDS = 15.0
_WAITING = 10_000  # events that may wait for a slow tracker
_TOGETHER = 1_000  # events that are taken at once
_LOG = logging.getLogger("koinon.track")


class Sink(ABC):
    """A listener that takes the events of one run after another to a tracker.

    A subclass says what to do with them, in :meth:`begin`, :meth:`log` and :meth:`end`, which run in the sink's own
    thread and may block and raise. Calling a sink never does. ``name`` is what a warning calls it, ``seconds`` how
    long :meth:`close` may take.
    """

    def __init__(self, name: str, seconds: float = CLOSING_SECONDS) -> None:
        self.name = name
        self._seconds = seconds
        self._queue: Queue[Event | None] = Queue(_WAITING)
        self._thread: Thread | None = None
        self._dropped = False
        self._running = False  # between begin and end; the thread's own

    @abstractmethod
    def begin(self, started: RunStarted) -> None:
        """Open the tracked run ``started.run``, or go on with it, and bring it up to ``started.past``."""

    @abstractmethod
    def log(self, records: Sequence[RoundRecord]) -> None:
        """Log finished rounds, oldest first."""

    @abstractmethod
    def end(self, finished: RunFinished | None) -> None:
        """Log why the run ended and close it; None for a run that was cut short."""

    def __call__(self, event: Event) -> None:
        """Take one event, at once. Nothing is taken after a failure."""
        if self._dropped:
            return
        if isinstance(event, RoundFinished):
            event = RoundFinished(replace(event.record, rows=None))  # a row of every client would wait with it
        if self._thread is None:
            self._thread = Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(event)
        except Full:
            self._drop(f"{_WAITING:,} events wait for it")

    def close(self) -> None:
        """Wait until everything has been taken, for ``seconds`` at most. The sink may be used again."""
        thread, self._thread = self._thread, None
        if thread is None or self._dropped:
            return
        with suppress(Full):
            self._queue.put_nowait(None)
        thread.join(self._seconds)
        if thread.is_alive():
            self._drop(f"it did not take everything within {self._seconds:g} s")

    def _work(self) -> None:
        try:
            while (events := self._next())[-1] is not None:
                self._take(events)
            self._take(events[:-1])
            if self._running:
                self._finish(None)
        except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises, the run goes on
            self._drop(f"{type(error).__name__}: {error}")

    def _next(self) -> list[Event | None]:
        """Return all events that wait, at least one; None stands for the end and is the last."""
        events = [self._queue.get()]
        with suppress(Empty):
            while events[-1] is not None and len(events) < _TOGETHER:
                events.append(self._queue.get_nowait())
        return events

    def _take(self, events: Sequence[Event | None]) -> None:
        for kind, group in groupby(events, type):
            if kind is RoundFinished:
                self.log([event.record for event in group if isinstance(event, RoundFinished)])
                continue
            for event in group:
                if isinstance(event, RunStarted):
                    if self._running:
                        self._finish(None)
                    self.begin(event if event.run else replace(event, run=new_run()))
                    self._running = True
                elif isinstance(event, RunFinished):
                    self._finish(event)

    def _finish(self, finished: RunFinished | None) -> None:
        self._running = False
        self.end(finished)

    def _drop(self, reason: str) -> None:
        if not self._dropped:
            self._dropped = True
            said = printable(" ".join(reason.split()))[:500]
            _LOG.warning("%s is dropped: %s. The run goes on without it.", self.name, said)


def new_run() -> str:
    """Return an identifier that no other run has: 12 hexadecimal digits."""
    return secrets.token_hex(6)


def label(started: RunStarted) -> str:
    """Return what a tracked run is called: what it trains, and which run of it."""
    return f"{started.name}-{started.run}"


def figures(record: RoundRecord) -> dict[str, float]:
    """Return everything that is logged of a round, by name: its figures, and how many clients it had, and its time.

    >>> figures(RoundRecord(1, 4, {"nice": ("w",)}, {"loss": 0.5}, 0.1))
    {'loss': 0.5, 'seconds': 0.1, 'cohort': 4.0, 'refused': 1.0, 'lost': 0.0}
    """
    counts = {"cohort": record.cohort, "refused": len(record.refused), "lost": len(record.lost)}
    return {**record.figures, "seconds": record.seconds} | {name: float(count) for name, count in counts.items()}


def missing(tracker: str, package: str) -> UnsupportedError:
    """Return the error of a tracker whose package is not installed."""
    return UnsupportedError(
        f"{tracker} was asked for, but {package} is not installed. Install it: pip install 'koinon[track]'."
    )
