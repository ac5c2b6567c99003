"""One coordinator as a real process on 127.0.0.1 for all of these tests, and two honest parties in its run."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import bare
import processes
import scene


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Fleet]:
    """A coordinator that serves the app beside this file."""
    folder = tmp_path_factory.mktemp("abuse")
    environment = {"PYTHONPATH": os.pathsep.join([*sys.path, str(HERE.parents[1])])}
    with processes.Fleet(
        folder, HERE / "app.py", serve=("--allow-origin", scene.ORIGIN), environment=environment
    ) as fleet:
        fleet.serve()
        yield fleet


@pytest.fixture(scope="session")
def stage(fleet: processes.Fleet) -> scene.Scene:
    """The run with its two honest parties."""
    return scene.Scene.of(fleet)


@pytest.fixture
def round_(stage: scene.Scene) -> Iterator[scene.Round]:
    """A round that is open and in which nobody has sent anything; the run must get over it afterwards."""
    yield stage.fresh_round()
    stage.fresh_round()


@pytest.fixture
def guest(fleet: processes.Fleet) -> Iterator[Callable[..., bare.Party]]:
    """Enrols further parties with a session; the operator revokes them at the end."""
    made: list[bare.Party] = []
    numbers = itertools.count()

    def enrolled(kind: str = "ed25519") -> bare.Party:
        party = bare.Party(fleet.url, f"guest-{os.urandom(4).hex()}-{next(numbers)}", bare.Key(kind))
        assert party.enrol(fleet.invite()).status == 200
        made.append(party)
        assert party.begin().status == 200
        return party

    yield enrolled
    for party in made:
        fleet.admin("POST", f"/v1/admin/clients/{party.client}/revoke")
