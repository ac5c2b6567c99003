"""A participant's line is started again at every boot: when its run is over and the coordinator gone, it says so and ends."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE)]

import processes


@pytest.mark.slow
def test_a_run_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": ":".join([*sys.path, str(HERE.parent)])}
    app = HERE / "faults" / "app.py"
    with processes.Fleet(tmp_path, app, changes=("stop.rounds=2",), environment=environment) as fleet:
        fleet.serve()
        parties = [fleet.join(name) for name in ("lyon", "nice", "paris")]
        assert [party.wait(90) for party in (*parties, fleet.coordinator)] == [0, 0, 0, 0]
        digest = parties[0].said().partition("digest ")[2].split()[0]
        again = parties[0].start()
        assert again.wait(60) == 0
        assert "it had ended when this line ran before" in again.said() and digest in again.said()
