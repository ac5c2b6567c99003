"""What is shown of a run whose rounds are quick: it is at work until it is over, and then nobody is late."""

from pathlib import Path

import pytest
from processes import Fleet

APP = Path(__file__).parent / "faults" / "app.py"


@pytest.mark.slow
def test_a_run_between_two_rounds_is_at_work_and_after_the_last_nobody_is_late(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--stay",), changes=("stop.rounds=60",)) as fleet:
        fleet.serve()
        assert (fleet.run()["state"], fleet.run()["waits_for"]) == (
            "waiting",
            "3 more clients to join: 0 of 3 are here",
        )
        for name in ("lyon", "nice", "paris"):
            fleet.join(name)
        fleet.until("it is at work", lambda: fleet.run()["state"] == "training", 60)
        seen: set[str] = set()
        fleet.until("it has finished", lambda: seen.add(fleet.run()["state"]) or "finished" in seen, 60)
        assert seen <= {"training", "evaluating", "finished"}
        fleet.coordinator.kill()
        fleet.serve()
        assert [client["standing"] for client in fleet.run()["clients"]] == ["idle"] * 3
