"""Death just before a file is made, written, renamed or removed, again and again, seeded: the run ends as undisturbed."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.processes import Fleet

MORTAL = str(Path(__file__).parent / "mortal")


@pytest.mark.parametrize("victim", ["coordinator", pytest.param("lyon", marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("deaths", "rounds", "seed"), [(5, 30, 1), pytest.param(60, 250, 2, marks=pytest.mark.slow)])
def test_a_process_that_dies_at_its_files_goes_on_to_the_same_end(
    victim: str, deaths: int, rounds: int, seed: int, app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    draw, changes = random.Random(seed), (f"stop.rounds={rounds}",)
    with Fleet(tmp_path, app, changes=changes, serve=("--stay",), environment={"ALGORITHM": "scaffold"}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        fleet.reaches(1, 60)
        process = {"coordinator": fleet.coordinator, **fleet.participants}[victim]
        process.kill()
        process.environment["PYTHONPATH"] = os.pathsep.join([MORTAL, process.environment["PYTHONPATH"]])
        process.environment["DIES_UNDER"] = str(tmp_path / victim)
        for _ in range(deaths):
            process.environment["DIES_AT"] = str(draw.randint(1, 60 if victim == "coordinator" else 20))
            assert process.start().wait(60) == -signal.SIGKILL, f"{victim} ended by itself\n{process.said()}"
        process.environment["DIES_AT"] = "0"
        process.start()
        digest = fleet.finishes(240)
        history = fleet.run()["history"]
    assert [row["round"] for row in history] == list(range(1, rounds + 1))
    assert all(row["cohort"] == 3 and not row["lost"] and not row["refused"] for row in history)
    assert digest == undisturbed(*changes, ALGORITHM="scaffold")
