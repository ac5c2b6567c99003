"""A hundred parties under masks in a fleet: each has a part of the others as neighbours, and some are lost for good."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fleet.many_app import NAMES, app
from fleet.processes import Fleet, Process, simulated
from koinon.app import execute, resolve

HERE = Path(__file__).parent
APP, TOGETHER = HERE / "many_app.py", 30


def begun(fleet: Fleet) -> list[Process]:
    """Start a coordinator and all parties, ten of them in a process of their own, which is the last."""
    fleet.serve()
    links = fleet.admin("POST", "/v1/admin/invitations", {"count": len(NAMES), "name": None, "hours": 1})["links"]
    processes = []
    for start in range(0, len(NAMES), TOGETHER):
        names = NAMES[start : start + TOGETHER]
        file = fleet.folder / f"links-{start}.json"
        file.write_text(json.dumps(dict(zip(names, links[start:], strict=False))))
        line = (sys.executable, str(HERE / "many_parties.py"), str(APP), str(fleet.folder), str(file))
        one = fleet.participants[f"parties-{start}"] = Process(
            f"parties-{start}", (), fleet.folder, environment=fleet.environment, program=line
        )
        processes.append(one.start())
    return processes


@pytest.mark.slow
def test_a_hundred_parties_come_to_the_sum_of_the_simulation(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--stay",)) as fleet:
        begun(fleet)
        assert fleet.finishes(200) == simulated(APP, tmp_path)


@pytest.mark.slow
def test_ten_of_a_hundred_are_lost_for_good(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"HERE": "90"}) as fleet:
        *_, last = begun(fleet)
        fleet.reaches(1, 120)
        last.kill()
        fleet.finishes(200)
        first = fleet.until("the model is here", lambda: next((tmp_path / NAMES[0]).glob("*.safetensors"), None), 30)
        learnt = load_file(first)
        last_round = fleet.run()["history"][-1]
        assert last_round["cohort"] - len(last_round["lost"]) == len(NAMES) - len(NAMES) % TOGETHER
    whole = execute(resolve(app), listen=lambda event: None).params
    for name, number in whole.items():  # masks left in a sum would be millions
        np.testing.assert_allclose(next(v for k, v in learnt.items() if k.endswith(name)), number, rtol=0.05)
