"""Two of what there may be one of: processes of one identity, coordinators of one folder."""

import shutil
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.processes import Fleet, Process

FAILED = 1


@pytest.mark.slow
def test_the_older_of_two_processes_with_one_identity_stops(app: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path, app, serve=("--stay",), environment={"STEP_SECONDS": "0.2"}) as fleet:
        fleet.serve()
        older = fleet.join("lyon")
        fleet.until("lyon has joined", lambda: "Joined" in older.said(), 30)
        shutil.copytree(tmp_path / "lyon", tmp_path / "stolen")
        line = ["join", fleet.invite(), str(app), "--name", "lyon", "--dir", str(tmp_path / "stolen")]
        younger = fleet.participants["younger"] = Process("younger", line, tmp_path).start()
        assert older.wait(60) == FAILED
        assert "Two processes must not use one identity: this one has to stop." in older.said()
        assert younger.alive
        for name in NAMES[1:]:
            fleet.join(name)
        fleet.finishes(60)
        assert younger.wait(40) == 0, younger.said()


def test_a_second_process_in_one_folder_does_not_start(app: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path, app, serve=("--stay",)) as fleet:
        fleet.serve()
        first = fleet.join("lyon")
        fleet.until("lyon has joined", lambda: "Joined" in first.said(), 30)
        line = ["join", fleet.invite(), str(app), "--name", "lyon", "--dir", str(tmp_path / "lyon")]
        second = fleet.participants["second"] = Process("second", line, tmp_path).start()
        assert second.wait(30) == FAILED
        assert "is in use by another process" in second.said()
        assert first.alive


def test_a_second_coordinator_of_one_folder_does_not_start(app: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path, app, serve=("--stay",)) as fleet:
        fleet.serve()
        line = ["serve", str(app), "--dir", str(fleet.store), "--listen", "127.0.0.1:0", "--plain-http"]
        second = fleet.participants["second"] = Process("second", line, tmp_path).start()
        assert second.wait(30) == FAILED
        assert f"is in use by another process (number {fleet.coordinator.pid})" in second.said()
        assert fleet.answers()
        fleet.coordinator.kill()
        fleet.serve()  # a lock dies with its process
