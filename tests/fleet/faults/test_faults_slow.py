"""Clients that are too slow or never answer: rows with a reason by quorum, a pause that says so below it."""

import signal
from pathlib import Path
from typing import Any

import pytest

from fleet.faults.app import NAMES
from fleet.faults.wires import Wire, slow
from fleet.processes import Fleet, Process, through

LATE = "late: no update before the time was up"
SHORT = ("schedule.shortest=3.0", "schedule.longest=6.0")
BY_QUORUM = ("schedule.quorum=0.6", "schedule.clients=2")  # two of three
TOGETHER = (*SHORT, "schedule.retries=0", "stop.rounds=3")  # all of three


def history(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the rounds that are over."""
    return list(fleet.run()["history"])


def error_of(fleet: Fleet, name: str) -> str:
    """Return what a client is shown to have failed at last."""
    return next(str(client["last_error"]) for client in fleet.run()["clients"] if client["name"] == name)


def freeze(fleet: Fleet, name: str) -> Process:
    """Let a participant live and never answer."""
    process = fleet.participants[name]
    fleet.until(f"{name} has joined", lambda: "Joined" in process.said(), 30)
    process.signal(signal.SIGSTOP)
    return process


def test_a_client_that_never_answers_is_a_row_and_the_rounds_go_on(app: Path, tmp_path: Path) -> None:
    changes = (*SHORT, *BY_QUORUM, "stop.rounds=60")
    with Fleet(tmp_path, app, changes=changes, serve=("--stay",), environment={"STEP_SECONDS": "0.05"}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        fleet.until("a round of all", lambda: [row for row in history(fleet) if row["cohort"] == 3], 60)
        lyon = freeze(fleet, "lyon")
        fleet.until("lyon is lost", lambda: {"lyon": LATE} in [row["lost"] for row in history(fleet)], 30)
        lost = next(row for row in history(fleet) if row["lost"])
        fleet.reaches(lost["round"] + 2, 30)
        assert history(fleet)[-1]["cohort"] == 2, "nobody waits for it again"
        assert fleet.run()["state"] != "paused"
        lyon.signal(signal.SIGCONT)
        back = fleet.until("lyon is back", lambda: [row for row in history(fleet)[-1:] if row["cohort"] == 3], 30)
        assert not back[0]["lost"]


@pytest.mark.slow
def test_an_upload_below_the_slowest_rate_is_said_and_the_round_goes_on_without_it(app: Path, tmp_path: Path) -> None:
    changes = ("schedule.quorum=0.6", "schedule.shortest=12.0", "schedule.longest=12.0", "stop.rounds=1")
    large = {"BALLAST": "100000"}  # 400 kB: 25 s at this rate
    with (
        Fleet(tmp_path, app, changes=changes, serve=("--stay",), environment=large) as fleet,
        Wire(fleet.port, slow(16_000.0)) as wire,
    ):
        fleet.serve()
        lyon = fleet.join("lyon", link=through(fleet.invite("lyon"), wire.port))
        fleet.until("lyon has joined", lambda: "Joined" in lyon.said(), 30)
        for name in NAMES[1:]:
            fleet.join(name)
        fleet.until("it is said", lambda: "the slowest allowed is 32" in error_of(fleet, "lyon"), 30)
        fleet.finishes(60)
        assert history(fleet)[0]["lost"] == {"lyon": LATE}
        assert lyon.wait(60) == 0, lyon.said()


def test_below_quorum_the_run_pauses_says_so_and_goes_on_when_the_client_is_back(app: Path, tmp_path: Path) -> None:
    with Fleet(tmp_path, app, changes=TOGETHER, serve=("--stay",)) as fleet:
        fleet.serve()
        fleet.join("lyon")
        lyon = freeze(fleet, "lyon")
        for name in NAMES[1:]:
            fleet.join(name)
        fleet.until("the run pauses", lambda: fleet.run()["state"] == "paused", 30)
        waits_for = fleet.run()["waits_for"]
        assert waits_for.startswith("1 more client: 2 have answered, and 3 must: lyon (last heard of "), waits_for
        assert fleet.rounds() == 0
        lyon.signal(signal.SIGCONT)
        fleet.finishes(40)
        assert all(row["cohort"] == 3 and not row["lost"] for row in history(fleet))
