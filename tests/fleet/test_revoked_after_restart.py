"""Who was revoked stays so: after a restart nobody waits for its update, and what it had sent does not count."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "abuse"), str(HERE)]

import processes
import scene

SECONDS = 60.0


@pytest.mark.parametrize("sent", [False, True], ids=["asked", "committed"])
def test_a_revoked_client_is_neither_waited_for_nor_counted(tmp_path: Path, sent: bool) -> None:
    environment = {"PYTHONPATH": ":".join([*sys.path, str(HERE.parent)])}
    with processes.Fleet(tmp_path, HERE / "abuse" / "app.py", environment=environment) as fleet:
        fleet.serve()
        stage = scene.Scene.of(fleet)
        round = stage.fresh_round()
        if sent:
            assert round.nice.send().status == 200
        stage.revoke(stage.nice)
        fleet.coordinator.kill()
        fleet.serve()
        fleet.until("the round is open again", lambda: fleet.run()["open"], SECONDS)
        if not sent:
            assert fleet.run()["round"] < round.number, "it was not over before"
        assert stage.lyon.begin().status == 200
        answer = round.lyon.send()
        assert answer.status == 200, answer
        fleet.until("the round is over", lambda: fleet.run()["round"] >= round.number, SECONDS)
        row = stage.row(round.number)
        assert row["lost"] == {"nice": "revoked by the operator"}
        kept = stage.lyon.call("GET", f"/v1/runs/{stage.key}/receipts?since={round.number - 1}").json["receipts"][0]
        assert stage.nice.client in str(kept), "the receipt says that it was asked"
