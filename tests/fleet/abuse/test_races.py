"""A client that says something else while its commit is being checked gains nothing by it."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bare
import numpy as np
import pytest
from scene import Scene

import koinon as kn
from koinon.core.types import Purpose
from koinon.fleet.coordinator.ledger import Ledger
from koinon.fleet.coordinator.members import Member
from koinon.fleet.coordinator.payload import Expected, Received
from koinon.fleet.coordinator.run import FleetRun
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.coordinator.stage import Settled, StageJob
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import OwnKey, digest, encoded, signed_text
from koinon.store import tensors

MODEL, TRAIN, CLIENT = "0" * 64, Purpose.TRAIN, "c-1"
KEY = OwnKey(bytes(range(32)))


def file_of(number: float) -> bytes:
    """Return an update of one number."""
    return b"".join(
        tensors.pieces({"update.params.w": np.float32([number]), "metrics.examples": np.float32(4)})
    )  # fmt: skip


GOOD, POISON = file_of(1.0), file_of(np.nan)


def claim(data: bytes) -> Claim:
    return Claim(len(data), 1 << 20, (digest(data),))


class Run:
    """A run of one client with its first stage open; ``checking`` is called in the middle of a commit's check."""

    def __init__(self, store: FleetStore) -> None:
        terms = kn.Synchronous(clients=1, quorum=1.0, shortest=30.0, longest=30.0)
        ledger = Ledger(store, "r-1")
        self.checking: Callable[[], Any] = lambda: None
        self.run = FleetRun("r-1", terms, ledger, Spool(ledger.folder / "spool"), time.monotonic)
        self.run.join(Member(CLIENT, CLIENT, 4, 0))
        expected = Expected.of(kn.fedavg(kn.sgd(0.1)), {"params": {"w": np.ones(1, np.float32)}}, self._finish)
        self._job = StageJob(
            1, TRAIN, MODEL, 100, 1, lambda client: np.zeros(2, np.uint32), expected, least=1, newcomers=False
        )
        self.settled: list[Settled] = []
        self.thread = threading.Thread(target=self._drive, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 10
        while self.run.work(CLIENT)["state"] != "train":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def bring(self, data: bytes) -> None:
        """Announce a file and send it."""
        self.run.begin_upload(CLIENT, 1, TRAIN, claim(data))
        chunk = self.run.open_chunk(CLIENT, 1, TRAIN, 0)
        if chunk is not None:
            chunk.write(data)
            assert chunk.finish()

    def commit(self, data: bytes, weight: int = 4) -> bool:
        """Commit it."""
        root, size = claim(data).root, len(data)
        text = signed_text("update", "r-1", 1, "train", CLIENT, MODEL, root, size, weight)
        word = {"root": root, "weight": weight, "model": MODEL, "signature": encoded(KEY.sign(text))}
        return self.run.commit(KEY.public, CLIENT, 1, TRAIN, word)

    def _finish(self, sums: Any) -> None:
        hook, self.checking = self.checking, lambda: None
        hook()

    def _drive(self) -> None:
        self.settled.append(self.run.settled(self._job, [CLIENT], []))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Give an open stage; afterwards it must be over with the good update, and that as it was checked."""
    with FleetStore.open(tmp_path) as store:
        run = Run(store)
        yield run
        if run.run.work(CLIENT)["state"] == "train":
            run.bring(GOOD)
            run.commit(GOOD)
        run.thread.join(10)
        (received,) = run.settled[0].received
        tensor = next(t for t in received.upload.layout().tensors if t.name.startswith("update"))
        assert [leaf.tolist() for leaf in received.upload.read([tensor])] == [[1.0]]


def test_another_file_announced_during_the_check(run: Run) -> None:
    run.bring(GOOD)
    run.checking = lambda: run.bring(POISON)
    with pytest.raises(Refusal) as refused:
        run.commit(GOOD)
    assert (refused.value.status, refused.value.code) == (409, "conflict")


def test_another_file_announced_right_after_the_check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.bring(GOOD)
    judge = Received.verdicts

    def judged(self: Received, expected: Expected) -> dict[str, bool]:
        verdicts = judge(self, expected)
        run.bring(POISON)
        return verdicts

    with monkeypatch.context() as patch:
        patch.setattr(Received, "verdicts", judged)
        with pytest.raises(Refusal) as refused:
            run.commit(GOOD)
    assert (refused.value.status, refused.value.code) == (409, "conflict")


def test_the_same_file_sent_again_during_the_check(run: Run) -> None:
    run.bring(GOOD)
    run.checking = lambda: run.bring(GOOD)
    assert run.commit(GOOD) is False


def test_a_chunk_that_was_begun_before_the_commit_and_ends_after_it(run: Run) -> None:
    run.run.begin_upload(CLIENT, 1, TRAIN, claim(GOOD))
    late = run.run.open_chunk(CLIENT, 1, TRAIN, 0)
    assert late is not None
    run.bring(GOOD)
    assert run.commit(GOOD) is False
    late.write(POISON[: late.left])
    assert not late.finish()


def test_another_weight_committed_during_the_check(run: Run) -> None:
    run.bring(GOOD)
    run.checking = lambda: run.commit(GOOD, weight=9)
    with pytest.raises(Refusal) as refused:
        run.commit(GOOD)
    assert refused.value.status in (409, 410)
    run.thread.join(10)
    assert [part.weight for part in run.settled[0].received] == [9]


def test_a_client_that_is_revoked_while_it_joins_stays_out(run: Run) -> None:
    run.run.revoke("c-2")
    with pytest.raises(Refusal) as refused:
        run.run.join(Member("c-2", "nice", 4, 0))
    assert (refused.value.status, refused.value.code) == (403, "revoked")
    assert "c-2" not in run.run.members and "c-2" not in run.run.snapshot()[0].present


def test_a_join_whose_body_comes_after_the_revocation(own_stage: Scene) -> None:
    late = bare.Party(own_stage.fleet.url, "paris", bare.Key("ed25519"))
    assert [late.enrol(own_stage.fleet.invite("paris")).status, late.begin().status] == [200, 200]
    said = {"app": own_stage.run["app"], "train_examples": 8, "held_out_examples": 0, "codecs": [], "versions": {}}
    body, place = json.dumps(said).encode(), urlsplit(late.url)
    line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    line.putrequest("POST", f"/v1/runs/{own_stage.key}/join")
    for name, value in {"Authorization": f"Bearer {late.token}", "Content-Length": str(len(body))}.items():
        line.putheader(name, value)
    line.endheaders(body[:9])
    time.sleep(0.3)  # the session was looked at when the head came
    own_stage.revoke(late)
    line.send(body[9:])
    answer = line.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["code"]) == (403, "revoked")
    line.close()
    assert "paris" not in [client["name"] for client in own_stage.state()["clients"]]
    assert own_stage.goes_on()
