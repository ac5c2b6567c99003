"""What a run says while it runs: a live line on a terminal, plain lines in a pipe, one updated line in a notebook.

Every progress is a ``Listener`` and has ``close()``, which a failed run needs too: use ``contextlib.closing``.
Times come from the records, so the same run prints the same lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from koinon.core.events import RoundFinished, RoundRecord, RunFinished, RunStarted
from koinon.core.types import Purpose
from koinon.report.figures import headline, number, seconds_text
from koinon.report.markup import element
from koinon.report.terminal import encodable, printable

if TYPE_CHECKING:
    from rich.console import Console

_NAMED = 3  # refused clients shown by name, and leaves of each
_UNNAMED = RunStarted("run", 0, 0, 0)  # until the first event
TRAIN = Purpose.TRAIN.value
STAGES = {TRAIN: "update", Purpose.EVALUATE.value: "evaluation"}
"""What a part of a round would have led to."""
REFUSED = "an update that is not finite or too large to add"
REMEDY = "Lower the learning rate, scale the inputs, or put Clip into the channel."


class Progress(Protocol):
    """A listener that holds a terminal or a stream until it is closed."""

    def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
        """Take one event."""

    def close(self) -> None:
        """Give the terminal back. Safe to call twice."""


class Silent:
    """Says nothing."""

    def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
        """Take no notice."""

    def close(self) -> None:
        """Hold nothing."""


class _Tally:
    """What has to be remembered between two events of a run."""

    def __init__(self, started: RunStarted) -> None:
        self.started = started
        self.name = printable(started.name)
        self.figures: Mapping[str, float] = {}
        self._seconds = 0.0
        self._advised = False  # the remedy for refused clients is said once a run
        self._void: Mapping[str, str] = {}  # of the round before

    def opening(self) -> str:
        clients, rounds = _count(self.started.clients, "client"), _count(self.started.rounds, "round")
        done = self.started.resumed_from
        return f"{self.name}: {clients}, up to {rounds}{f', resumed after round {done}' if done else ''}"

    def take(self, record: RoundRecord) -> list[str]:
        """Count a round in; return what is to be said of what has no result, and of refused clients."""
        self._seconds += record.seconds
        self.figures = record.figures or self.figures
        return [*self._without_result(record), *self._without(list(record.refused), record)]

    def _without_result(self, record: RoundRecord) -> list[str]:
        """Return why training or evaluation came to nothing; of an evaluation the same is said once."""
        before, self._void = self._void, {**self._void, **record.void}
        return [
            f"  no {STAGES[stage]}: {printable(why)}"
            for stage, why in record.void.items()
            if stage == TRAIN or before.get(stage) != why
        ]

    def _without(self, names: list[str], record: RoundRecord) -> list[str]:
        lines = [
            f"  refused {printable(name)}: {REFUSED}, in {_some([printable(leaf) for leaf in record.refused[name]])}"
            for name in names[:_NAMED]
        ]
        if names[_NAMED:]:
            lines.append(f"  refused {_count(len(names) - _NAMED, 'more client')}")
        if names and not self._advised:
            self._advised = True
            lines.append(f"  The run goes on without them. {REMEDY}")
        return lines

    def closing(self, event: RunFinished) -> list[str]:
        spent = f" in {seconds_text(self._seconds)}" if self._seconds else ""
        shown = describe(self.figures)
        ended = f"{self.name}: {_count(event.rounds, 'round')}{spent}{f', {shown}' if shown else ''}"
        return [ended, f"stopped: {printable(event.stopped)}"]


class PlainProgress:
    """One plain line per round, for a pipe or a log. A stream that cannot be written ends the talk, not the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._tally = _Tally(_UNNAMED)

    def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
        """Write one event."""
        match event:
            case RunStarted():
                self._tally = _Tally(event)
                self._write(self._tally.opening())
            case RoundFinished(record):
                rounds = str(self._tally.started.rounds)
                parts = (describe(record.figures), seconds_text(record.seconds))
                self._write("  ".join((f"round {record.round:>{len(rounds)}}/{rounds}", *filter(None, parts))))
                self._write(*self._tally.take(record))
            case RunFinished():
                self._write(*self._tally.closing(event), f"digest: {event.digest}")

    def close(self) -> None:
        """Leave the stream, which belongs to somebody else."""

    def _write(self, *lines: str) -> None:
        if self._stream is None:
            return
        try:
            for line in lines:
                self._stream.write(encodable(line, self._stream.encoding) + "\n")
            self._stream.flush()
        except OSError:
            self._stream = None


class TerminalProgress:
    """One live line with a bar; refused clients are printed above it, a summary replaces it."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),  # a piped standard output is data, not talk
        )
        self._tally = _Tally(_UNNAMED)
        self._task: Any = None

    def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
        """Show one event."""
        match event:
            case RunStarted():
                self.close()
                self._tally = _Tally(event)
                self._say(self._tally.opening())
                self._task = self._bar.add_task(
                    self._tally.name, total=event.rounds, completed=event.resumed_from, figures=""
                )
                self._bar.start()
            case RoundFinished(record):
                self._say(*self._tally.take(record), style="yellow")
                if self._task is not None:
                    self._bar.update(self._task, completed=record.round, figures=describe(self._tally.figures))
            case RunFinished():
                self.close()
                self._say(*self._tally.closing(event), style="bold")

    def close(self) -> None:
        """Take the bar away and show the cursor again."""
        self._bar.stop()
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _say(self, *lines: str, style: str = "") -> None:
        from rich.text import Text  # which reads no markup, colour or emoji into a name

        for line in lines:
            self._console.print(Text(encodable(line, self._console.encoding), style))


class NotebookProgress:
    """One paragraph that is replaced after every round. ``show`` takes its HTML."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._tally = _Tally(_UNNAMED)
        self._refused: list[str] = []

    def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
        """Show one event."""
        match event:
            case RunStarted():
                self._refused = []
                self._tally = _Tally(event)
                lines = [self._tally.opening()]
            case RoundFinished(record):
                self._refused = self._tally.take(record) or self._refused
                rounds = self._tally.started.rounds
                lines = [f"{self._tally.name}: round {record.round}/{rounds}  {describe(record.figures)}"]
            case RunFinished():
                lines = self._tally.closing(event)
        self._show(element("pre", "\n".join([*lines, *self._refused])))

    def close(self) -> None:
        """Hold nothing."""


def choose_progress(stream: TextIO | None = None) -> Progress:
    """Return the progress that suits ``stream``, standard error unless given.

    A notebook gets one updated paragraph, a terminal a live line, a pipe or a dumb terminal plain lines,
    a process without standard error silence.
    """
    chosen = sys.stderr if stream is None else stream
    if stream is None and "ipykernel" in sys.modules:
        return NotebookProgress(_notebook())
    if chosen is None:
        return Silent()
    if chosen.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        return TerminalProgress(Console(file=chosen))
    return PlainProgress(chosen)


def describe(figures: Mapping[str, float]) -> str:
    """Return the headline figures in one line.

    >>> describe({"train_loss": 0.5, "loss": 0.61, "accuracy": 0.8123, "accuracy_worst": 0.7})
    'loss 0.6100  accuracy 0.8123 (worst 0.7000)'
    """
    words: list[str] = []
    for name, value in headline(figures):
        if name.endswith("_worst"):
            words[-1] += f" (worst {number(value)})"
        else:
            words.append(f"{printable(name)} {number(value)}")
    return "  ".join(words)


def _notebook() -> Callable[[str], None]:
    from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

    handle = display(HTML(""), display_id=True)
    return lambda shown: handle.update(HTML(shown))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(leaves: list[str]) -> str:
    return ", ".join(leaves[:_NAMED]) + (f" and {len(leaves) - _NAMED} more" if leaves[_NAMED:] else "")
