"""What a coordinator hears of a participant whose update is hidden: no number of it, and not its weight."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon.app import App, resolve
from koinon.core.types import Payload, Purpose
from koinon.core.wire import Wire
from koinon.data.dataset import federate
from koinon.errors import CompositionError
from koinon.fleet.participant.connection import Unreachable
from koinon.fleet.participant.floors import Floors
from koinon.fleet.participant.keep import Enrolled, Keep
from koinon.fleet.participant.making import Maker
from koinon.fleet.participant.participant import Participant
from koinon.fleet.participant.secure_sum import Place
from koinon.fleet.wire.receipts import canonical
from koinon.fleet.wire.signatures import digest
from koinon.privacy.secure_sum.client import Client, Masked
from koinon.privacy.secure_sum.saved import from_bytes
from koinon.privacy.secure_sum.server import Stage
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors as OwnFloors
from koinon.round.masked import terms_of

VALUE = {"params": {"w": np.zeros(2, np.float32), "b": np.float32(0)}, "state": {"batches": np.float32(0)}}
WORK = {"round": 1, "purpose": "train", "cohort": 4, "model": "a" * 64, "bytes": 0, "attempt": 0, "roster": "00" * 32}
AGREEMENT = {"app": "hearts"}


class Coordinator:
    """Hears what a participant says, and answers what it has to know."""

    patience = 1.0

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if method == "POST":
            self.heard.append((path, body))
        app = digest(canonical(AGREEMENT).encode())
        runs = [{"run": "r-1", "name": "hearts", "app": app}]
        return {"runs": runs, "description": AGREEMENT, "chunk_bytes": 1 << 22, "receipts": [], "name": "hearts"}


def party(keep: Keep, said: list[str], floors: Floors, **channel: Any) -> tuple[Participant, Coordinator]:
    algorithm = kn.fedavg(kn.sgd(0.05), channel=(kn.Clip(1.0), kn.SecureSum(**channel)))
    app = App(model=linear.LinearModel(), clients=linear.clients((6,)), algorithm=algorithm, holdout=0.0)
    part: Any = SimpleNamespace(
        training=resolve(app, data=federate(app.clients, holdout=0.0)).program(),
        engine=None,
        agreement=AGREEMENT,
        floors=floors,
        run=None,
        once=False,
    )
    coordinator: Any = Coordinator()
    return Participant(part, keep, Enrolled("", None, "c0", "lyon", ""), coordinator, said.append), coordinator


def sent(weight: float, loss: float) -> Callable[..., Any]:
    value = {"params": {"b": np.float32(0.1), "w": np.full(2, 0.1, np.float32)}, "state": {"batches": np.float32(0)}}

    def send(plan: Any, job: Any, states: Any) -> tuple[Payload, Any]:
        if not weight:
            raise ValueError("row 17: the age 4711 is not an age")
        return Payload(value, np.float32(weight), {"examples": np.float32(4), "loss": np.float32(loss)}), {}

    return send


@pytest.mark.parametrize(
    ("weight", "loss", "why"), [(4711, 1.0, "weight of 1 to 4,096"), (1, np.inf, "metric sum"), (0, 1.0, "4711")]
)
def test_why_an_update_does_not_fit_is_for_its_owner_alone(
    weight: float, loss: float, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    caplog.set_level(logging.CRITICAL)
    with closing(Keep(tmp_path)) as keep:
        participant, coordinator = party(keep, said, Floors())
        training = participant._part.training
        terms = terms_of(training.plan.algorithm, "r-1", 1, Purpose.TRAIN, 0, value=VALUE, cohort=4)
        room = Room(terms, OwnFloors(), Identities.of([f"c{i}" for i in range(4)]), {})
        room.begin(room._identities.keys)
        room.step(Stage.SHARES)
        room.step(Stage.VECTORS)
        sums: Any = SimpleNamespace(prepared=lambda *_: room.states["c0"])
        engine: Any = SimpleNamespace(send=sent(weight, loss))
        participant._maker = Maker(training, engine, keep, coordinator, sums, "r-1", 1)  # type: ignore[arg-type]
        participant._maker._model = ("a" * 64, VALUE)
        assert not participant._work(WORK)
    assert any(why in line for line in said), said
    ((_, told),) = coordinator.heard
    assert told == {"reason": "its update cannot be added up; why is said at this participant, and nowhere else"}


@pytest.mark.parametrize("model", [None, "m" * 64], ids=["no model", "a model that does not come"])
def test_a_run_that_is_over_leaves_no_secret_of_anybody(model: str | None, tmp_path: Path) -> None:
    """A party that died between its vector and the end of the sum, and comes back when all is over."""

    def unreachable(model: str) -> int:
        raise Unreachable("nobody there")

    with closing(Keep(tmp_path)) as keep:
        participant, coordinator = party(keep, [], Floors())
        coordinator.size = unreachable  # type: ignore[attr-defined]
        participant._join()
        terms = terms_of(participant._part.training.plan.algorithm, "r-1", 1, Purpose.TRAIN, 0, value=VALUE, cohort=4)
        room = Room(terms, OwnFloors(), Identities.of([f"c{i}" for i in range(4)]), {})
        room.begin(room._identities.keys)
        room.step(Stage.SHARES)
        room.step(Stage.VECTORS)
        room.mask("c0", terms.layout.zero())
        masked = room.states["c0"]
        assert isinstance(masked, Masked) and masked.held
        participant._maker._sums.write(Place("r-1", 1, Purpose.TRAIN, 0), masked)
        participant._ended({"state": "finished", "serial": 1, "stopped": "", "digest": None, "model": model})
        kept = keep.secure_sum("r-1", "train")
        assert kept is not None
        left = from_bytes(kept)
        assert isinstance(left, Client) and left.standing is None
        assert left.past.masked == 1, "and it is not forgotten that a vector has left"


@pytest.mark.parametrize(("own", "least", "found"), [(1, 5, 5), (7, 5, 7), (1, 3, 3)])
def test_no_sum_is_of_fewer_than_the_app_or_the_participant_asks_for(
    own: int, least: int, found: int, tmp_path: Path
) -> None:
    """A coordinator that has agreed on sums of five does not get one of three."""
    with closing(Keep(tmp_path)) as keep:
        participant, _ = party(keep, [], Floors(cohort=own), least=least)
        participant._join()
        sums = participant._maker._sums
        assert sums._floors.minimum_cohort == found
        assert sums._app.hex() == digest(canonical(AGREEMENT).encode()), "its sums are of those who do the same"


@pytest.mark.parametrize(("bound", "said"), [(None, "does not bound them"), (2.0, "bounds them by 2")])
def test_a_floor_for_norms_says_what_the_channel_does(bound: float | None, said: str) -> None:
    with pytest.raises(
        CompositionError, match=rf"must not be longer than 1, and the app's channel {said}\. Put Clip\(1\)"
    ):
        Floors(norm=1.0).check(Wire(l2_bound=bound))
