"""SIGINT and SIGTERM of both sides: a clean end with a documented status, and the same line goes on."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.processes import Fleet

CHANGES = ("stop.rounds=25",)
STEP = {"STEP_SECONDS": "0.02"}
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=lambda number: number.name
)
def test_who_is_told_to_end_ends_and_goes_on(
    number: signal.Signals, app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    with Fleet(tmp_path, app, changes=CHANGES, serve=("--stay",), environment=STEP) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        for rounds, process in ((2, fleet.coordinator), (4, fleet.participants["lyon"])):
            fleet.reaches(rounds, 60)
            process.signal(number)
            if number is signal.SIGTERM:
                process.signal(number)  # as some supervisors do: to the process, and to its group
            assert process.wait(15) == STATUS[number]
            assert "Traceback" not in process.said()
            assert "run the same line again" in process.said()
            process.start()
        digest = fleet.finishes(60)
    assert digest == undisturbed(*CHANGES)


def test_both_sides_end_by_themselves_when_the_run_is_over(app: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path, app) as fleet:
        fleet.serve()
        participants = [fleet.join(name) for name in NAMES]
        assert [participant.wait(60) for participant in participants] == [0, 0, 0], fleet.story()
        assert fleet.coordinator.wait(20) == 0
        assert "The run is finished" in participants[0].said()


def test_a_coordinator_in_a_scripts_background_leaves_the_interrupts_that_it_was_started_without(
    app: Path, tmp_path: Path
) -> None:
    """A shell starts such a process deaf to Ctrl-C: it goes on, and does not end as if all were done."""
    with Fleet(tmp_path, app) as fleet:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            fleet.serve()
        finally:
            signal.signal(signal.SIGINT, before)
        fleet.coordinator.signal(signal.SIGINT)
        time.sleep(1.0)
        assert fleet.answers()
        fleet.coordinator.signal(signal.SIGTERM)
        assert fleet.coordinator.wait(15) == STATUS[signal.SIGTERM]
