"""A secure sum between real processes: the digest of the simulation, whoever is killed, and nothing of a single update."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from fleet.processes import Fleet, simulated
from fleet.secure_app import NAMES

APP = Path(__file__).parent / "secure_app.py"
MORTAL = str(Path(__file__).parent / "faults" / "mortal")


def begun(fleet: Fleet) -> None:
    fleet.serve()
    for name in NAMES:
        fleet.join(name)


def test_the_masks_leave_the_sum_of_the_simulation(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, tls=True, serve=("--stay",)) as fleet:
        begun(fleet)
        assert fleet.finishes(60) == simulated(APP, tmp_path)
        assert all(row["cohort"] == 5 and not row["lost"] for row in fleet.run()["history"])
    for path in (tmp_path / "lyon" / "states").iterdir():
        assert path.stat().st_size < 1000, "shares of others' secrets are not kept beyond their round"


@pytest.mark.parametrize(
    ("victim", "deaths"),
    [("lyon", 3), *(pytest.param(who, 25, marks=pytest.mark.slow) for who in ("coordinator", "lyon"))],
)
def test_who_dies_and_comes_back_changes_nothing(victim: str, deaths: int, tmp_path: Path) -> None:
    rounds, draw = 4 + 2 * deaths, random.Random(5)
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"ROUNDS": str(rounds)}) as fleet:
        begun(fleet)
        fleet.reaches(1, 60)
        process = {"coordinator": fleet.coordinator, **fleet.participants}[victim]
        process.kill()
        process.environment["PYTHONPATH"] = os.pathsep.join([MORTAL, process.environment["PYTHONPATH"]])
        process.environment["DIES_UNDER"] = str(tmp_path / victim)
        for _ in range(deaths):
            process.environment["DIES_AT"] = str(draw.randint(1, 40))
            assert process.start().wait(60) == -signal.SIGKILL, f"{victim} ended by itself\n{process.said()}"
        process.environment["DIES_AT"] = "0"
        process.start()
        digest = fleet.finishes(200)
        assert all(not row["lost"] and not row["refused"] for row in fleet.run()["history"])
    assert digest == simulated(APP, tmp_path, (), {"ROUNDS": str(rounds)})


@pytest.mark.parametrize("dies_at", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 30, 2))])
def test_who_dies_for_good_at_any_step_is_left_out(dies_at: int, tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, environment={"LONGEST": "4", "HERE": "4"}) as fleet:
        fleet.serve()
        for name in NAMES[1:]:
            fleet.join(name)
        mortal = {"PYTHONPATH": os.pathsep.join([MORTAL, fleet.coordinator.environment["PYTHONPATH"]])}
        mortal |= {"DIES_AT": str(dies_at), "DIES_UNDER": str(tmp_path / "lyon" / "states")}
        victim = fleet.join("lyon", environment=mortal)
        assert victim.wait(60) == -signal.SIGKILL, fleet.story()
        fleet.finishes(120)
        assert fleet.participants["paris"].wait(60) == 0
        (noted,) = (tmp_path / "paris" / "receipts").iterdir()
    receipts = [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]
    assert len(receipts) == 6
    assert all(receipt["aggregate"] for receipt in receipts)
