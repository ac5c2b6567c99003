"""A secure sum between real processes: the digest of the simulation, whoever is killed, and nothing of a single update."""

from pathlib import Path

from fleet.guarded_app import NAMES
from fleet.processes import Fleet, simulated

APP = Path(__file__).parent / "guarded_app.py"
MASKS = {"GUARD": "masks"}


def test_the_masks_leave_the_sum_of_the_simulation(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, environment=MASKS) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        assert fleet.finishes(60) == simulated(APP, tmp_path, (), MASKS)
