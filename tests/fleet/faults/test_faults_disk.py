"""A full disk under the uploads, the journal, a participant: said, waited out, and nothing is lost."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.faults.disk import SmallDisk
from fleet.processes import Fleet

LARGE = {"BALLAST": "500000"}  # 2 MB
CHANGES = ("stop.rounds=4",)
LONG = ("stop.rounds=30",)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that is not on the small disk."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    yield folder


def joined(fleet: Fleet) -> None:
    """Start everybody."""
    fleet.serve()
    for name in NAMES:
        fleet.join(name)


def test_a_full_spool_is_said_and_waited_out(app: Path, tmp_path: Path, undisturbed: Callable[..., str]) -> None:
    with (
        SmallDisk(tmp_path / "coordinator" / "spool", 16) as disk,
        Fleet(tmp_path, app, changes=CHANGES, serve=("--stay",), environment=LARGE) as fleet,
    ):
        disk.fill(but=1_000_000)
        joined(fleet)
        fleet.until("it is said", lambda: "cannot be kept" in (fleet.run()["waits_for"] or ""), 60)
        assert fleet.run()["state"] == "paused"
        assert "cannot be kept" in fleet.coordinator.said()
        assert fleet.coordinator.alive
        assert fleet.rounds() == 0
        disk.make_room()
        digest = fleet.finishes(100)
        fleet.coordinator.kill()
    assert digest == undisturbed(*CHANGES, **LARGE)


@pytest.mark.slow  # test_faults_journal.py: a write that is refused once, without the waiting
def test_a_full_journal_is_said_and_waited_out(
    app: Path, tmp_path: Path, elsewhere: Path, undisturbed: Callable[..., str]
) -> None:
    with (
        SmallDisk(tmp_path / "coordinator", 32) as disk,
        Fleet(tmp_path, app, changes=LONG, serve=("--stay",)) as fleet,
    ):
        for folder in ("spool", "runs"):
            (elsewhere / folder).mkdir()
            os.symlink(elsewhere / folder, disk.folder / folder)
        joined(fleet)
        fleet.reaches(2, 40)
        disk.fill()
        fleet.until("it is said", lambda: "full" in str(fleet.run()["waits_for"]), 40)
        assert fleet.run()["state"] == "paused"
        assert fleet.rounds() < 30
        disk.make_room()
        digest = fleet.finishes(150)
        assert [row["round"] for row in fleet.run()["history"]] == list(range(1, 31))
        fleet.coordinator.kill()
    assert digest == undisturbed(*LONG)


@pytest.mark.slow
def test_a_full_disk_of_a_participant_is_said_and_waited_out(
    app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    stateful = {"ALGORITHM": "scaffold", "BALLAST": "50000"}
    with (
        SmallDisk(tmp_path / "lyon", 4) as disk,
        Fleet(tmp_path, app, changes=LONG, serve=("--stay",), environment=stateful) as fleet,
    ):
        joined(fleet)
        fleet.reaches(2, 60)
        disk.fill()
        lyon = fleet.participants["lyon"]
        fleet.until("it is said", lambda: "No space" in lyon.said(), 60)
        assert "Traceback" not in lyon.said()
        assert lyon.alive
        disk.make_room()
        digest = fleet.finishes(100)
        lyon.kill()
    assert digest == undisturbed(*LONG, **stateful)
