"""Noise that parties add under their masks, between real processes: little of it hardly shows, all of it is counted."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koinon as kn
from fleet.noisy_app import NAMES, examples
from fleet.processes import Fleet, Process
from fleet.secure_app import app as clear
from koinon.privacy.accountant import composed
from koinon.privacy.mechanism import Adjacency, Event
from koinon.store.blobs import unpack

APP = Path(__file__).parent / "noisy_app.py"
MORTAL = str(Path(__file__).parent / "faults" / "mortal")
LITTLE = "0.001"


def begun(fleet: Fleet, names: tuple[str, ...] = NAMES) -> None:
    fleet.serve()
    for name in names:
        fleet.join(name)


def receipts(folder: Path, name: str) -> list[dict[str, Any]]:
    (noted,) = (folder / name / "receipts").iterdir()
    return [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]


def learnt(folder: Path, name: str) -> dict[str, np.ndarray]:
    (file,) = (folder / name).glob("*.safetensors")
    return dict(unpack(file.read_bytes())["params"])


def without_noise(rounds: int) -> dict[str, np.ndarray]:
    algorithm = kn.replace(clear.algorithm, channel=(kn.Clip(1.0),))
    algorithm = kn.replace(algorithm, work=kn.replace(algorithm.work, weighting=kn.Weighting.UNIFORM))
    run = kn.fit(
        clear.model, {name: examples(name) for name in NAMES}, algorithm, stop=kn.Stop(rounds=rounds), progress=False,
        engine="reference",
    )  # fmt: skip
    return dict(run.params)


def test_little_noise_leaves_the_sum_and_every_round_is_counted(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, tls=True, serve=("--stay",), environment={"MULTIPLIER": LITTLE}) as fleet:
        begun(fleet)
        fleet.finishes(60)
        run = fleet.run()
        assert all(row["cohort"] == 5 and not row["lost"] for row in run["history"])
        said = "\n".join(run["privacy"])
        assert "trust: no single party" in said and "honest-but-curious server only" in said
        assert fleet.participants["paris"].wait(60) == 0
    for name, leaf in learnt(tmp_path, "paris").items():
        np.testing.assert_allclose(leaf, without_noise(4)[name], atol=0.01)
    lines = [json.loads(receipt["privacy"]) for receipt in receipts(tmp_path, "paris")]
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert all((line["multiplier"], line["steps"], line["rate"]) == (0.001, 4096.0, 1.0) for line in lines)


def test_what_all_of_it_has_cost_is_said_at_the_end_as_in_simulation(tmp_path: Path) -> None:
    """Also where a coordinator has begun it that was killed, and where nobody has looked before."""
    with Fleet(tmp_path, APP) as fleet:
        begun(fleet)
        fleet.reaches(1, 60)
        fleet.coordinator.kill()
        fleet.serve()
        assert fleet.coordinator.wait(60) == 0
        said = [line for line in fleet.coordinator.said().splitlines() if line.startswith("privacy: ")]
    one = Process("simulation", ("run", str(APP)), tmp_path).start()
    assert one.wait(60) == 0, one.said()
    alone = [line for line in one.said().splitlines() if line.startswith("privacy: ")]
    assert "after 4 rounds" in said[0]
    assert said[:-1] == alone[: len(said) - 1]
    assert said[-1].startswith("privacy: SecureSum() protects against an honest-but-curious server only")


def test_the_budget_ends_the_run_before_the_round_that_would_exceed_it(tmp_path: Path) -> None:
    event = Event(1.1, 1.0, Adjacency.ZERO_OUT, 4096.0)
    two = composed({event: 2}, 1e-5)
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"EPSILON": str(two + 0.1)}) as fleet:
        begun(fleet)
        fleet.finishes(60)
        run = fleet.run()
    assert len(run["history"]) == 2
    assert any(f"epsilon {two:.4g} at delta" in line for line in run["privacy"])


@pytest.mark.parametrize("dies_at", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 30, 3))])
def test_a_party_that_dies_for_good_leaves_noise_enough_and_a_sum_that_is_read(dies_at: int, tmp_path: Path) -> None:
    """Its masks are taken off, the noise of the other four is what was planned for, and what is decoded is a model."""
    environment = {"LONGEST": "4", "HERE": "4", "MULTIPLIER": LITTLE}
    with Fleet(tmp_path, APP, environment=environment) as fleet:
        begun(fleet, NAMES[1:])
        mortal = {"PYTHONPATH": os.pathsep.join([MORTAL, fleet.coordinator.environment["PYTHONPATH"]])}
        mortal |= {"DIES_AT": str(dies_at), "DIES_UNDER": str(tmp_path / "lyon" / "states")}
        victim = fleet.join("lyon", environment=mortal)
        assert victim.wait(60) == -signal.SIGKILL, fleet.story()
        fleet.finishes(120)
        assert fleet.participants["paris"].wait(60) == 0
    found = receipts(tmp_path, "paris")
    assert len(found) == 4 and all(receipt["privacy"] for receipt in found)
    for name, leaf in learnt(tmp_path, "paris").items():
        np.testing.assert_allclose(leaf, without_noise(4)[name], atol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["lyon", "coordinator"])
def test_who_dies_and_comes_back_changes_nothing_that_can_be_seen(who: str, tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"MULTIPLIER": LITTLE, "ROUNDS": "12"}) as fleet:
        begun(fleet)
        fleet.reaches(1, 60)
        victim = {"coordinator": fleet.coordinator, **fleet.participants}[who]
        victim.kill()
        victim.environment["PYTHONPATH"] = os.pathsep.join([MORTAL, victim.environment["PYTHONPATH"]])
        victim.environment["DIES_UNDER"] = str(tmp_path / who)
        for place in (7, 13, 22):
            victim.environment["DIES_AT"] = str(place)
            assert victim.start().wait(60) == -signal.SIGKILL, f"it ended by itself\n{victim.said()}"
        victim.environment["DIES_AT"] = "0"
        victim.start()
        fleet.finishes(120)
        assert all(not row["lost"] and not row["refused"] for row in fleet.run()["history"])
        assert fleet.participants["paris"].wait(60) == 0
    for name, leaf in learnt(tmp_path, "paris").items():
        np.testing.assert_allclose(leaf, without_noise(12)[name], atol=0.01)
