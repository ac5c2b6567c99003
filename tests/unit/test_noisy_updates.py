"""An update with noise of the client's own is made once a round: two of them would tell more than either."""

import os
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon.app import App, resolve
from koinon.core.types import Payload
from koinon.fleet.participant.keep import Enrolled, Keep
from koinon.fleet.participant.making import Maker
from koinon.fleet.participant.participant import Participant

MODEL = "a" * 64
NOISY = (kn.Clip(1.0), kn.LocalGaussian(epsilon=8.0))


class Fresh:
    """An engine that never computes the same twice."""

    def send(self, plan: Any, job: Any, states: Any) -> tuple[Payload, Any]:
        return Payload({"w": np.frombuffer(os.urandom(8), np.float32)}, np.float32(1), {"examples": np.float32(4)}), {}


def made(folder: Path, round: int, channel: tuple[Any, ...], engine: Any = None, work: Any = None) -> bytes:
    """Return the update of a participant that has just been started."""
    algorithm = kn.fedavg(kn.sgd(0.05), channel=channel)
    app = App(
        model=linear.LinearModel(),
        clients=dict(list(linear.clients((6,)).items())),
        algorithm=algorithm if work is None else kn.replace(algorithm, work=work),
        holdout=0.0,
    )
    with closing(Keep(folder)) as keep:
        maker = Maker(resolve(app).program(), engine or Fresh(), keep, SimpleNamespace(), SimpleNamespace(), "r-1")  # type: ignore[arg-type]
        maker._model = (MODEL, {"params": {"w": np.zeros(2, np.float32)}, "state": {}})
        work = {"round": round, "purpose": "train", "cohort": 1, "model": MODEL, "bytes": 0}
        update = maker.made(work, lambda: True)
        assert update is not None and update.weight == 1
        return b"".join(update.pieces)


class Recording(Fresh):
    """An engine that keeps what it was given."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    def send(self, plan: Any, job: Any, states: Any) -> tuple[Payload, Any]:
        self._seen.append(states["work"]["secret"].tolist())
        return super().send(plan, job, states)


def test_the_first_secret_is_kept_before_it_is_used(tmp_path: Path) -> None:
    """A participant that is killed in its first round sends the same noise when it is back, not a second release."""
    seen: list[Any] = []
    for _ in range(2):
        made(tmp_path, 1, (), Recording(seen), kn.PrivateTraining())
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 8


def test_it_is_made_once_and_forgotten_when_the_round_is_decided(tmp_path: Path) -> None:
    first = made(tmp_path, 1, NOISY)
    assert made(tmp_path, 1, NOISY) == first
    assert made(tmp_path, 2, NOISY) != first
    with closing(Keep(tmp_path)) as keep:
        keep.decide("r-1", 1, accepted=True)
    assert [path.name for path in (tmp_path / "states").iterdir()] == [f"r-1.{MODEL[:16]}.made-2"]


@pytest.mark.parametrize(
    ("algorithm", "refused"),
    [
        (kn.fedavg(kn.sgd(0.05), channel=NOISY), True),
        (kn.replace(kn.fedavg(kn.sgd(0.05)), work=kn.PrivateTraining()), True),
        (kn.fedavg(kn.sgd(0.05)), False),
    ],
)
def test_one_round_is_not_answered_for_two_models(algorithm: Any, refused: bool, tmp_path: Path) -> None:
    with closing(Keep(tmp_path)) as keep:
        keep.note("commits", "r-1", {"round": 3, "purpose": "train", "model": MODEL})
        part = SimpleNamespace(training=SimpleNamespace(plan=SimpleNamespace(algorithm=algorithm)))
        participant = Participant(part, keep, Enrolled("", None, "c-1", "lyon", ""), SimpleNamespace(), print)  # type: ignore[arg-type]
        participant._run = "r-1"
        for round, model, second in ((3, MODEL, False), (3, "b" * 64, refused), (4, "b" * 64, False)):
            work = {"round": round, "purpose": "train", "model": model}
            assert participant._asked_before_with_another_model(work) is second


@pytest.mark.parametrize("channel", [(), (kn.Clip(1.0),), (kn.Clip(1.0), kn.GaussianNoise(1.0))], ids=repr)
def test_others_are_computed_anew(channel: tuple[Any, ...], tmp_path: Path) -> None:
    assert made(tmp_path, 1, channel) != made(tmp_path, 1, channel)
    assert not (tmp_path / "states").exists()
