"""One coordinator as a real process on 127.0.0.1 for all of these tests, and two honest parties in its run."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import bare
import processes
import scene


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., scene.Scene]]:
    """Starts a coordinator of the app beside this file, and of others, and brings two parties into its run."""
    environment = {"PYTHONPATH": os.pathsep.join([*sys.path, str(HERE.parents[1])])}
    with ExitStack() as undo:

        def started(*others: str) -> scene.Scene:
            folder = tmp_path_factory.mktemp("abuse")
            serve = [*(str(HERE / other) if other.endswith(".py") else other for other in others)]
            serve += ["--allow-origin", scene.ORIGIN]
            fleet = undo.enter_context(processes.Fleet(folder, HERE / "app.py", serve=serve, environment=environment))
            fleet.serve()
            return scene.Scene.of(fleet)

        yield started


@pytest.fixture(scope="session")
def _shared(stages: Callable[[], scene.Scene]) -> list[scene.Scene]:
    return [stages()]


@pytest.fixture
def stage(_shared: list[scene.Scene], stages: Callable[[], scene.Scene]) -> scene.Scene:
    """The run with its two honest parties; another where a test before has ended it, so that one fault is one failure."""
    if not _shared[0].goes_on():
        _shared[0] = stages()
    return _shared[0]


@pytest.fixture
def own_stage(stages: Callable[[], scene.Scene]) -> Iterator[scene.Scene]:
    """A run of this test alone, which may end it."""
    own = stages()
    yield own
    own.fleet.coordinator.kill()


@pytest.fixture
def round_(stage: scene.Scene) -> Iterator[scene.Round]:
    """A round that is open and in which nobody has sent anything; the run must get over it afterwards."""
    yield stage.fresh_round()
    stage.fresh_round()


@pytest.fixture
def guest(stage: scene.Scene) -> Iterator[Callable[..., bare.Party]]:
    """Enrols further parties with a session; the operator revokes them at the end."""
    made: list[bare.Party] = []
    numbers = itertools.count()

    def enrolled(kind: str = "ed25519") -> bare.Party:
        party = bare.Party(stage.fleet.url, f"guest-{os.urandom(4).hex()}-{next(numbers)}", bare.Key(kind))
        assert party.enrol(stage.fleet.invite()).status == 200
        made.append(party)
        assert party.begin().status == 200
        return party

    yield enrolled
    for party in made:
        stage.revoke(party)
