"""Robust aggregates and private sums between institutions: the bits of the simulation, and a ledger that outlives kill -9."""

import json
from pathlib import Path

import pytest

from fleet.guarded_app import NAMES
from fleet.processes import Fleet, simulated

APP = Path(__file__).parent / "guarded_app.py"


@pytest.mark.parametrize("guard", ["median", pytest.param("noise", marks=pytest.mark.slow), "adaptive"])
def test_the_fleet_ends_in_the_digest_of_the_simulation(guard: str, tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, environment={"GUARD": guard}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        assert fleet.finishes(60) == simulated(APP, tmp_path, (), {"GUARD": guard})


def test_a_private_run_goes_on_with_its_keys_and_counts_every_round_once(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, environment={"GUARD": "coins", "SECRET": "yes"}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        fleet.reaches(3, 60)
        keys = secret(tmp_path)
        fleet.coordinator.kill()
        fleet.serve()
        fleet.finishes(60)
        for process in fleet.participants.values():
            assert process.wait(60) == 0, fleet.story()
    assert secret(tmp_path) == keys
    (ledger,) = tmp_path.glob("*/runs/*/privacy-ledger.jsonl")
    header, *entries = map(json.loads, ledger.read_text().splitlines())
    assert header["unit"] == "client"
    assert [entry["round"] for entry in entries] == list(range(1, 9))
    assert len({entry["run"] for entry in entries}) == 1
    assert all(entry["secret"] for entry in entries)
    (noted,) = (tmp_path / "lyon" / "receipts").iterdir()
    receipts = [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]
    assert [receipt["aggregate"] for receipt in receipts] == [None] * 8, "a digest of the clean sum would tell of it"
    assert [receipt["privacy"] for receipt in receipts] == ledger.read_text().splitlines()[1:]


def secret(folder: Path) -> str:
    (path,) = folder.glob("*/runs/*/privacy.keys")
    assert path.stat().st_mode & 0o077 == 0
    return path.read_text()
