"""The wall clock of everybody jumps an hour, forth and back, in the middle of a run: nothing changes."""

import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.processes import Fleet

CHANGES = ("stop.rounds=20", "schedule.quorum=0.6")  # whoever is thought late is left out
SLOW = {"STEP_SECONDS": "0.15"}  # so that a round is open for most of the time, and one client is awaited
HOUR = 3600


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that moves the wall clock of a process, and leaves the monotonic one alone."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("moving a process' wall clock needs a C compiler")
    built = tmp_path_factory.mktemp("clock") / "wall_clock.so"
    source = Path(__file__).parent / "wall_clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source], check=True, timeout=60)
    return built


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_clock_that_jumps_changes_nothing(
    seconds: int, app: Path, library: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    moved = {name: tmp_path / f"{name}.clock" for name in ("coordinator", *NAMES)}
    with Fleet(tmp_path, app, tls=True, changes=CHANGES, serve=("--stay",)) as fleet:
        fleet.coordinator.environment |= clock(library, moved["coordinator"])
        fleet.serve()
        for name in NAMES:
            fleet.join(name, environment=clock(library, moved[name]) | (SLOW if name == "lyon" else {}))
        fleet.reaches(3, 60)
        moved["coordinator"].write_text(str(seconds))
        fleet.until("the clock is wrong", lambda: abs(lead(fleet) - seconds) < 60, 10)
        fleet.reaches(7, 60)
        moved["lyon"].write_text(str(seconds))
        moved["nice"].write_text(str(-seconds))
        fleet.reaches(12, 60)
        moved["coordinator"].write_text("0")
        digest = fleet.finishes(60)
        history = fleet.run()["history"]
    assert all(row["cohort"] == 3 and not row["lost"] and 0 <= row["seconds"] < 60 for row in history)
    assert digest == undisturbed(*CHANGES)


def lead(fleet: Fleet) -> float:
    """Return how many seconds the coordinator's wall clock is ahead of this process'."""
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(f"{fleet.url}/healthz", timeout=5, context=context) as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()


def clock(library: Path, moved: Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock is ahead by the seconds in a file."""
    return {"LD_PRELOAD": str(library), "WALL_CLOCK": str(moved)}
