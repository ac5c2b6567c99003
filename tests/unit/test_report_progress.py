"""Whoever watches a run sees every round and every refused client, and can never change or stop the run."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import history, matches_golden, record
from rich.console import Console

from koinon.core.events import Listener, RoundFinished, RunFinished, RunStarted
from koinon.report.progress import (
    NotebookProgress,
    PlainProgress,
    Progress,
    Silent,
    TerminalProgress,
    choose_progress,
)
from koinon.report.terminal import encodable, printable

_SHOW_CURSOR, _HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(progress: Listener, refused: str = "Switzerland", resumed_from: int = 0) -> None:
    """Show a whole run to a listener."""
    progress(RunStarted("fedavg", 4, 100, resumed_from))
    for one in history(6, refused)[resumed_from:]:
        progress(RoundFinished(one))
    progress(RunFinished("converged: loss has not improved by more than 0.001 for 10 rounds", 6, "9f2c" * 16))


def live(width: int = 100) -> tuple[TerminalProgress, io.StringIO]:
    stream = _Terminal()
    return TerminalProgress(Console(file=stream, force_terminal=True, width=width, color_system=None)), stream


def plain(refused: str = "Switzerland", resumed_from: int = 0) -> str:
    stream = io.StringIO()
    watch(PlainProgress(stream), refused, resumed_from)
    return stream.getvalue()


def test_plain_progress_matches_its_golden_file() -> None:
    assert matches_golden("report_plain_progress.txt", plain())


def test_a_resumed_run_says_where_it_goes_on() -> None:
    assert plain(resumed_from=2).splitlines()[0].endswith("resumed after round 2")


def test_refused_clients_are_named_with_leaves_and_the_remedy_is_said_once() -> None:
    text = plain()
    assert text.count("refused Switzerland") == 2
    assert "params/dense/kernel" in text
    assert text.count("Lower the learning rate") == 1


def test_many_refused_clients_are_counted_not_listed() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress(RoundFinished(record(1, {f"client-{i}": ("params/w",) for i in range(50)})))
    assert "refused 47 more clients" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 6


@given(st.text(min_size=1))
def test_a_clients_name_cannot_break_the_lines_or_move_the_cursor(name: str) -> None:
    text = plain(name)
    assert len(text.splitlines()) == len(plain().splitlines())
    assert all(c.isprintable() or c == "\n" for c in text)


@given(st.text())
def test_any_encoding_can_hold_the_text(text: str) -> None:
    for encoding in ("ascii", "latin-1", "utf-8"):
        encodable(printable(text), encoding).encode(encoding)


def test_a_stream_that_lacks_a_letter_gets_it_spelt_out() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    watch(PlainProgress(stream), "Zürich")
    stream.seek(0)
    assert r"refused Z\xfcrich" in stream.read()


def test_a_full_disk_ends_the_talk_and_not_the_run() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    watch(PlainProgress(Full()))


def test_live_progress_gives_the_terminal_back_when_a_run_fails() -> None:
    progress, stream = live()
    with pytest.raises(KeyboardInterrupt), closing(progress):
        progress(RunStarted("fedavg", 4, 100, 0))
        raise KeyboardInterrupt
    text = stream.getvalue()
    assert text.count(_HIDE_CURSOR) == text.count(_SHOW_CURSOR) == 1
    progress.close()


def test_live_progress_shows_rounds_figures_and_refused_clients() -> None:
    progress, stream = live()
    watch(progress)
    text = stream.getvalue()
    for wanted in ("/100", "loss 0.", "(worst 0.", "refused Switzerland", "6 rounds in 730 ms", "stopped: converged"):
        assert wanted in text, wanted


def test_live_progress_takes_several_runs_one_after_the_other() -> None:
    progress, stream = live()
    watch(progress)
    watch(progress)
    assert stream.getvalue().count("stopped: ") == 2


def test_live_progress_reads_no_markup_in_names() -> None:
    progress, stream = live(200)
    watch(progress, "[red]Basel[/red] :smile:")
    assert "[red]Basel[/red] :smile:" in stream.getvalue()


def test_notebook_progress_replaces_one_paragraph() -> None:
    shown: list[str] = []
    watch(NotebookProgress(shown.append), "<b>Bern</b>")
    assert len(shown) == 8
    assert all(one.startswith("<pre>") and one.endswith("</pre>") for one in shown)
    assert "&lt;b&gt;Bern&lt;/b&gt;" in shown[-1]
    assert "stopped: converged" in shown[-1]


def test_the_progress_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose_progress(_Terminal()), TerminalProgress)
    assert isinstance(choose_progress(io.StringIO()), PlainProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose_progress(_Terminal()), PlainProgress)
    monkeypatch.setattr(sys, "stderr", None)
    chosen: Progress = choose_progress()
    assert isinstance(chosen, Silent)
    watch(chosen)
    chosen.close()


def test_rich_is_not_imported_before_it_is_used() -> None:
    code = "import sys, koinon.report.progress, koinon.report.table; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
