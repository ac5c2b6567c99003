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

CHANGES = ("stop.rounds=12", "schedule.quorum=0.6", "schedule.retries=0")  # whoever is thought late is left out
SLOW = {"STEP_SECONDS": "0.1"}  # a round is open for most of the time, and they answer one after the other
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


@pytest.mark.parametrize("seconds", [HOUR, pytest.param(-HOUR, marks=pytest.mark.slow)])
def test_a_clock_that_jumps_changes_nothing(
    seconds: int, app: Path, library: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    moved = {name: tmp_path / f"{name}.clock" for name in ("coordinator", *NAMES)}
    with Fleet(tmp_path, app, tls=True, changes=CHANGES, serve=("--stay",), environment=SLOW) as fleet:
        fleet.coordinator.environment |= clock(library, moved["coordinator"])
        fleet.serve()
        for name in NAMES:
            fleet.join(name, environment=clock(library, moved[name]))
        for jump in range(1, 6):
            fleet.reaches(jump, 60)
            moved["coordinator"].write_text(str(jump * seconds))
            moved[NAMES[jump % 3]].write_text(str(-seconds))
            fleet.until("the clock is wrong", lambda jump=jump: abs(lead(fleet) - jump * seconds) < 60, 10)
        fleet.reaches(8, 60)
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
