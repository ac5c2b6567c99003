"""What an operator reads of a party that is away: while the run waits, when it has ended, and how that party gets the end."""

import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

import processes

SECONDS = 60.0
CHANGES = (
    "stop.rounds=4",
    *(f"algorithm.schedule.{term}" for term in ("clients=2", "quorum=0.5", "shortest=1.0", "longest=1.0")),
)


@pytest.fixture
def environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join([*sys.path, str(HERE.parent)]), "STEP_SECONDS": "0.02"}


@pytest.mark.slow
def test_who_was_away_at_the_end_is_named_and_gets_it_from_one_that_stays(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    app = HERE / "faults" / "app.py"
    with processes.Fleet(tmp_path, app, changes=CHANGES, environment=environment) as fleet:
        fleet.serve()
        lyon, nice, paris = (fleet.join(name) for name in ("lyon", "nice", "paris"))
        fleet.reaches(1, SECONDS)
        nice.kill()
        assert [party.wait(SECONDS) for party in (lyon, paris, fleet.coordinator)] == [0, 0, 0], fleet.story()
        assert "app: nice did not come for its end since this coordinator started" in fleet.coordinator.said()
        digest = lyon.said().partition("digest ")[2].split()[0]
        fleet.coordinator._line.append("--stay")
        fleet.serve()
        assert nice.start().wait(SECONDS) == 0
        assert f"digest {digest}" in nice.said()


@pytest.mark.slow
def test_a_run_between_rounds_says_who_is_away_and_a_pause_counts_no_time(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    app = HERE / "faults" / "app.py"
    with processes.Fleet(tmp_path, app, changes=CHANGES, environment=environment) as fleet:
        fleet.serve()
        _, nice = fleet.join("lyon"), fleet.join("nice")
        fleet.reaches(1, SECONDS)
        nice.kill()
        away = "1 more client to join: 1 of 2 are here; missing: nice (last heard of"
        fleet.until("it says who is away", lambda: away in (fleet.run()["waits_for"] or ""), SECONDS)
        fleet.until("so does the log", lambda: f"app rests. It waits for {away}" in fleet.coordinator.said(), 10)
        key = fleet.run()["run"]
        for change in ("pause", "resume"):
            fleet.admin("POST", f"/v1/admin/runs/{key}/{change}", {})
            time.sleep(0.5)
        assert "app goes on" not in fleet.coordinator.said(), "nobody has come"
        nice.start()
        fleet.until("a round is open", lambda: (fleet.run()["open"] or {}).get("seconds_left"), SECONDS)
        fleet.admin("POST", f"/v1/admin/runs/{key}/pause", {})
        paused = fleet.run()
        assert paused["state"] == "paused" and (paused["open"] or {"seconds_left": None})["seconds_left"] is None
        fleet.coordinator.kill()
        fleet.serve()
        assert "app is still paused: koinon resume" in fleet.coordinator.said()
        fleet.admin("POST", f"/v1/admin/runs/{key}/cancel", {})
        assert {client["standing"] for client in fleet.until("it has ended", lambda: ended(fleet), 10)} <= {
            "idle",
            "late",
        }


def ended(fleet: processes.Fleet) -> list[dict[str, str]] | None:
    """Return the parties' rows once the run is cancelled."""
    run = fleet.run()
    return run["clients"] if run["state"] == "cancelled" else None
