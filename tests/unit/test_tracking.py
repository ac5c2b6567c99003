"""What holds of every tracker: it hears all of a run, and can neither end it nor hold it up."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest
from tracking_samples import fit, fit_cut_short

from koinon.cli.exit_status import Exit
from koinon.cli.main import main
from koinon.core.events import RoundFinished, RoundRecord, RunFinished, RunStarted
from koinon.errors import ConfigurationError, UnsupportedError
from koinon.report.tracking.choose import sinks
from koinon.report.tracking.sink import Sink


class Notes(Sink):
    """Writes down what it is told."""

    def __init__(self, seconds: float = 10.0) -> None:
        super().__init__("Notes", seconds)
        self.started: list[RunStarted] = []
        self.rounds: list[list[int]] = []  # of each session, the past ones first
        self.ended: list[RunFinished | None] = []

    def begin(self, started: RunStarted) -> None:
        self.started.append(started)
        self.rounds.append([record.round for record in started.past])

    def log(self, records: Sequence[RoundRecord]) -> None:
        self.rounds[-1] += [record.round for record in records]
        assert all(record.rows is None for record in records)

    def end(self, finished: RunFinished | None) -> None:
        self.ended.append(finished)


class Failing(Notes):
    """Fails where it is told to, at once or when it is set free."""

    def __init__(self, stage: str, wait: Event | None = None, seconds: float = 10.0) -> None:
        super().__init__(seconds)
        self.stage, self.wait = stage, wait

    def begin(self, started: RunStarted) -> None:
        self._do("begin")

    def log(self, records: Sequence[RoundRecord]) -> None:
        self._do("log")

    def end(self, finished: RunFinished | None) -> None:
        self._do("end")

    def _do(self, stage: str) -> None:
        if stage != self.stage:
            return
        if self.wait is not None:
            self.wait.wait(60)
        raise OSError("the disk\nis full")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_tracker_hears_all_of_a_run() -> None:
    notes = Notes()
    run = fit([notes], rounds=30)
    assert notes.rounds == [list(range(1, 31))]
    assert notes.ended == [RunFinished(run.stopped, 30, run.digest)]
    assert notes.started[0].identity["algorithm"]["name"] == notes.started[0].name
    assert notes.started[0].identity["seed"] == 0


def test_every_tracker_of_a_run_hears_the_same() -> None:
    one, other = Notes(), Notes()
    fit([one, other])
    assert one.started == other.started
    assert one.rounds == other.rounds


def test_a_resumed_run_is_the_same_tracked_run_and_begins_with_its_past(tmp_path: Path) -> None:
    notes = Notes()
    fit_cut_short([notes], tmp_path / "kept", after=4)
    assert notes.rounds == [[1, 2, 3]]  # the fourth was committed and not told
    assert notes.ended == [None]
    run = fit([notes], tmp_path / "kept", rounds=6)
    assert notes.rounds[1] == [1, 2, 3, 4, 5, 6]
    assert notes.started[1].resumed_from == 4
    assert notes.ended[1] == RunFinished(run.stopped, 6, run.digest)
    assert notes.started[0].run == notes.started[1].run
    assert notes.started[0].identity == notes.started[1].identity


def test_two_runs_are_two_tracked_runs(tmp_path: Path) -> None:
    notes = Notes()
    fit([notes])
    fit([notes])
    for folder in ("one", "two"):
        fit([notes], tmp_path / folder)
    assert len({started.run for started in notes.started}) == 4


@pytest.mark.parametrize("stage", ["begin", "log", "end"])
def test_a_tracker_that_fails_is_dropped_with_one_line_and_the_run_goes_on(
    stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    run = fit([Failing(stage), notes], rounds=50)
    assert run.digest == fit([], rounds=50).digest
    assert notes.rounds == [list(range(1, 51))]
    assert warnings(caplog) == ["Notes is dropped: OSError: the disk is full. The run goes on without it."]


@pytest.mark.parametrize("stage", ["begin", "log", "end"])
def test_a_tracker_that_hangs_costs_its_closing_time_and_no_more(stage: str, caplog: pytest.LogCaptureFixture) -> None:
    free = Event()
    began = time.perf_counter()
    fit([Failing(stage, free, seconds=0.5)])
    assert 0.5 <= time.perf_counter() - began < 10
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "Notes"]
    free.set()
    thread.join(10)  # it fails now, of which nobody needs to hear again
    assert warnings(caplog) == [
        "Notes is dropped: it did not take everything within 0.5 s. The run goes on without it."
    ]


def test_what_waits_for_a_tracker_that_hangs_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    free, record = Event(), RoundRecord(1, 2, {}, {}, 0.0)
    sink = Failing("begin", free, seconds=30.0)
    sink(RunStarted("fedavg", 2, 10, 0))
    for _ in range(20_000):
        sink(RoundFinished(record))
    assert sink._queue.qsize() <= 10_000
    assert warnings(caplog) == ["Notes is dropped: 10,000 events wait for it. The run goes on without it."]
    began = time.perf_counter()
    sink.close()
    assert time.perf_counter() - began < 15, "its closing time is not waited for"
    free.set()


def test_a_tracker_that_is_slow_gets_rounds_together_and_in_order() -> None:
    class Slow(Notes):
        calls = 0

        def log(self, records: Sequence[RoundRecord]) -> None:
            time.sleep(0.05)
            self.calls += 1
            super().log(records)

    slow = Slow()
    slow(RunStarted("fedavg", 2, 300, 0, run="one"))
    for number in range(1, 301):
        slow(RoundFinished(RoundRecord(number, 2, {}, {}, 0.0)))
    slow.close()
    assert slow.rounds == [list(range(1, 301))]
    assert slow.calls < 30
    assert slow.ended == [None]


def test_a_run_that_nobody_named_gets_a_name_of_its_own() -> None:
    notes = Notes()
    for _ in range(2):
        notes(RunStarted("fedavg", 2, 10, 0))
    notes.close()
    assert len({started.run for started in notes.started} - {""}) == 2
    assert notes.ended == [None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tensorbord:runs", "Did you mean 'tensorboard'"),
        ("runs", "tensorboard:FOLDER, mlflow:http://HOST:PORT/EXPERIMENT, wandb:PROJECT"),
        ("tensorboard", "Use tensorboard:FOLDER"),
        ("wandb:", "Use wandb:PROJECT"),
        ("mlflow:http://127.0.0.1:5000", "Use mlflow:http://HOST:PORT/EXPERIMENT"),
        ("mlflow:http://127.0.0.1:5000/", "Use mlflow:http://HOST:PORT/EXPERIMENT"),
        ("mlflow:heart", "Use mlflow:http://HOST:PORT/EXPERIMENT"),
    ],
)
def test_a_tracker_that_says_nothing_known_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sinks([text])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("tensorboard:runs", "tensorboardX"),
        ("mlflow:http://127.0.0.1:5000/heart", "mlflow"),
        ("wandb:heart", "wandb"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(text: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself keeps of a module that may not be imported
    with pytest.raises(UnsupportedError, match=rf"{package} is not installed.*pip install 'koinon\[track\]'"):
        sinks([text])


def test_the_command_line_refuses_before_it_loads_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app.py").write_text("raise RuntimeError('loaded')")
    monkeypatch.setattr(sys, "argv", ["koinon", "run", str(tmp_path / "app.py"), "--track", "tensorbord:runs"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.USAGE
    assert "Did you mean 'tensorboard'" in capsys.readouterr().err
