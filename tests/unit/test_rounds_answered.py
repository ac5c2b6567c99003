"""What a participant answers at most: a coordinator that lies asks for round after round, and for one round again."""

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon.app import App, resolve
from koinon.core.types import Purpose
from koinon.data.dataset import federate
from koinon.errors import ProtocolError
from koinon.fleet.participant.floors import Floors
from koinon.fleet.participant.keep import COMMITS, Enrolled, Keep
from koinon.fleet.participant.making import Maker
from koinon.fleet.participant.participant import Participant
from koinon.privacy.secure_sum.client import Ready
from koinon.privacy.secure_sum.server import Stage
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors as OwnFloors
from koinon.round.masked import terms_of

MODEL = "a" * 64


def program() -> Any:
    algorithm = kn.fedavg(kn.sgd(0.05), channel=(kn.Clip(1.0), kn.SecureSum()))
    app = App(model=linear.LinearModel(), clients=linear.clients((6,)), algorithm=algorithm, holdout=0.0)
    return resolve(app, data=federate(app.clients, holdout=0.0)).program()


def work(round: int, purpose: str = "train") -> dict[str, Any]:
    return {
        "round": round, "purpose": purpose, "cohort": 4, "model": MODEL, "bytes": 0, "attempt": 0, "roster": "00" * 32
    }  # fmt: skip


@pytest.mark.parametrize(("most", "answers"), [(None, 6), (3, 3), (1, 1)])
def test_no_more_rounds_are_answered_than_the_party_says(most: int | None, answers: int, tmp_path: Path) -> None:
    told: list[str] = []

    def call(method: str, path: str, body: Any = None) -> None:
        told.append(body["reason"])

    done: list[tuple[str, int]] = []
    for run in ("r-1", "r-2"):  # as another process each, so that it is the disk that counts
        with closing(Keep(tmp_path)) as keep:
            part: Any = SimpleNamespace(training=program(), floors=Floors(rounds=most))
            connection: Any = SimpleNamespace(call=call, patience=1.0)
            participant = Participant(part, keep, Enrolled("", None, "c0", "lyon", ""), connection, lambda line: None)
            participant._run = run

            def answer(asked: Any, run: str = run, keep: Keep = keep) -> bool:
                keep.note(COMMITS, run, {name: asked[name] for name in ("round", "purpose", "model")})
                done.append((run, asked["round"]))
                return True

            participant._done = answer  # type: ignore[assignment]
            for round in (1, 2, 3):
                participant._work(work(round))
                if (run, round) in done:  # to judge the model of a round that was answered is the same round
                    assert participant._work(work(round, "evaluate"))
    assert len(set(done)) == answers
    assert len(told) == 6 - answers and all(f"answers {most} rounds at most" in reason for reason in told)


def test_a_vector_leaves_once_even_if_the_folder_has_forgotten_that(tmp_path: Path) -> None:
    """The states were put back as they were, and the commits were not."""
    training = program()
    value = {"params": {"w": np.zeros(2, np.float32), "b": np.float32(0)}, "state": {"batches": np.float32(0)}}
    terms = terms_of(training.plan.algorithm, "r-1", 1, Purpose.TRAIN, 0, value=value, cohort=4)
    room = Room(terms, OwnFloors(), Identities.of([f"c{i}" for i in range(4)]), {})
    room.begin(room._identities.keys)
    room.step(Stage.SHARES)
    room.step(Stage.VECTORS)
    assert isinstance(room.states["c0"], Ready), "it would mask"
    sums: Any = SimpleNamespace(prepared=lambda *_: room.states["c0"])
    with closing(Keep(tmp_path)) as keep:
        keep.note(COMMITS, "r-1", {"round": 1, "purpose": "train", "model": MODEL})
        maker = Maker(training, SimpleNamespace(), keep, SimpleNamespace(), sums, "r-1")  # type: ignore[arg-type]
        maker._model = (MODEL, value)
        with pytest.raises(ProtocolError, match="put back from a copy"):
            maker.made(work(1), lambda: True)
