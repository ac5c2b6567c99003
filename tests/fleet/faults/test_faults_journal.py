"""The journal refuses one write, as a full disk does: what was to be done is done as soon as it can be written."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

import koinon as kn
from koinon.core.types import Purpose
from koinon.errors import StoreError
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.access import Access
from koinon.fleet.coordinator.ledger import Ledger, StageRow
from koinon.fleet.coordinator.members import Member
from koinon.fleet.coordinator.payload import Expected
from koinon.fleet.coordinator.run import FleetRun
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.coordinator.stage import Settled, StageJob
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.wire.pieces import Pieces
from koinon.fleet.wire.signatures import OwnKey, digest, encoded, signed_text
from koinon.store import tensors

VALUE = {"params": {"w": np.ones(3, np.float32)}}
MODEL = "0" * 64
TRAIN = Purpose.TRAIN


class Journal(Ledger):
    """A ledger whose next writes of a stage fail as often as it is told."""

    refuses = 0

    def __init__(self, store: FleetStore, run: str) -> None:
        super().__init__(store, run)
        self.store = store

    def write_stage(self, round: int, purpose: Purpose, row: StageRow) -> None:
        """Fail or write."""
        if self.refuses:
            self.refuses -= 1
            raise StoreError("The disk is full. Make room.")
        super().write_stage(round, purpose, row)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Give the ledger of a run in a store of its own."""
    with FleetStore.open(tmp_path / "store") as store:
        yield Journal(store, "r-1")


def begun(journal: Journal) -> FleetRun:
    """Return a run whose two clients are here."""
    terms = kn.Synchronous(clients=2, quorum=1.0, shortest=5.0, longest=5.0)
    run = FleetRun("r-1", terms, journal, Spool(journal.folder / "spool"), time.monotonic)
    for client in ("c-1", "c-2"):
        run.join(Member(client, client, 4, 0))
    return run


def job() -> StageJob:
    """Return the first round's training."""
    expected = Expected.of(kn.fedavg(kn.sgd(0.1)), VALUE)
    return StageJob(1, TRAIN, MODEL, 100, 2, lambda client: np.zeros(2, np.uint32), expected, least=1, newcomers=False)


def open_in_background(run: FleetRun) -> tuple[threading.Thread, list[Settled | BaseException]]:
    """Open the stage in a thread of its own, as the driver does; return where its end will be."""
    ended: list[Settled | BaseException] = []

    def drive() -> None:
        try:
            ended.append(run.settled(job(), ["c-1", "c-2"], []))
        except StoreError as error:
            ended.append(error)

    thread = threading.Thread(target=drive, daemon=True)
    thread.start()
    return thread, ended


def send(run: FleetRun, client: str) -> None:
    """Send and commit a client's update."""
    key = OwnKey(client.encode().ljust(32))
    update = {"update.params.w": np.ones(3, np.float32), "metrics.examples": np.float32(4)}
    parts = list(tensors.pieces(update))
    claim, whole = Pieces(parts).claim(1 << 20), memoryview(b"".join(parts))
    run.begin_upload(client, 1, TRAIN, claim)
    chunk = run.open_chunk(client, 1, TRAIN, 0)
    if chunk is not None:
        chunk.write(whole)
        assert chunk.finish()
    text = signed_text("update", "r-1", 1, "train", client, MODEL, claim.root, claim.size, 4)
    word: Mapping[str, Any] = {"root": claim.root, "weight": 4, "model": MODEL, "signature": encoded(key.sign(text))}
    run.commit(key.public, client, 1, TRAIN, word)


def test_a_settlement_that_could_not_be_written_is_written_when_the_client_sends_again(journal: Journal) -> None:
    run = begun(journal)
    thread, ended = open_in_background(run)
    send_when_asked(run, "c-1")
    journal.refuses = 1
    with pytest.raises(StoreError, match="disk is full"):
        send(run, "c-2")
    send(run, "c-2")
    thread.join(10)
    assert isinstance(ended[0], Settled)
    assert len(ended[0].received) == 2


def test_a_stage_that_could_not_be_opened_is_opened_anew(journal: Journal) -> None:
    run = begun(journal)
    journal.refuses = 1
    with pytest.raises(StoreError, match="disk is full"):
        run.settled(job(), ["c-1", "c-2"], [])
    assert run.work("c-1")["state"] == "idle"
    thread, ended = open_in_background(run)
    for client in ("c-1", "c-2"):
        send_when_asked(run, client)
    thread.join(10)
    assert isinstance(ended[0], Settled)


def test_a_second_asking_that_could_not_be_written_is_made_anew(journal: Journal) -> None:
    terms_seconds = 5.0
    run = begun(journal)
    thread, ended = open_in_background(run)
    send_when_asked(run, "c-1")
    journal.refuses = 1
    thread.join(terms_seconds + 5)  # the time is up, and the second asking cannot be written
    assert isinstance(ended[0], StoreError)
    thread, ended = open_in_background(run)
    send_when_asked(run, "c-2")
    thread.join(10)
    assert isinstance(ended[0], Settled)
    assert len(ended[0].received) == 2


def test_who_was_asked_before_a_restart_hears_of_it_though_it_looked_before_the_stage_was_open(
    journal: Journal,
) -> None:
    journal.write_stage(1, TRAIN, StageRow(MODEL, ("c-1", "c-2"), 2, None, {}))  # as an earlier process left it
    again = begun(journal)
    idle = again.work("c-2")
    assert idle["state"] == "idle"
    thread, ended = open_in_background(again)
    for client in ("c-1", "c-2"):
        send_when_asked(again, client)
    assert again.work("c-2")["serial"] != idle["serial"], "a long poll would not have been answered"
    thread.join(10)
    assert isinstance(ended[0], Settled)


class Forgetful(FleetStore):
    """A store whose next transaction fails at its end."""

    refuses = False

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Fail at the end, or not."""
        with super().transaction() as rows:
            yield rows
            if self.refuses:
                self.refuses = False
                raise StoreError("The disk is full. Make room.")


def test_an_enrolment_that_could_not_be_written_can_be_made_again(tmp_path: Path) -> None:
    with Forgetful.open(tmp_path / "store") as store:
        assert isinstance(store, Forgetful)
        access, key = Access(store, time.monotonic), OwnKey(bytes(32))
        token = access.invite("lyon", 1)
        text = signed_text("enrol", digest(token.encode()), "lyon", encoded(key.public.raw))
        store.refuses = True
        with pytest.raises(StoreError, match="disk is full"):
            access.enrol(token, "lyon", key.public, key.sign(text))
        assert access.enrol(token, "lyon", key.public, key.sign(text)).name == "lyon"


def send_when_asked(run: FleetRun, client: str) -> None:
    """Send a client's update as soon as it is asked for."""
    deadline = time.monotonic() + 10
    while run.work(client)["state"] != "train":
        assert time.monotonic() < deadline, f"{client} was never asked"
        time.sleep(0.01)
    send(run, client)


def test_a_pause_outlives_the_coordinator(journal: Journal) -> None:
    with journal.store.transaction() as rows:
        rows.execute(
            sa.insert(tables.runs).values(run="r-1", name="app", identity="{}", ended=None, paused=False),
        )
    begun(journal).pause()
    again = begun(journal)
    assert "koinon resume" in str(again.snapshot()[0].waits_for)
    again.resume()
    assert begun(journal).snapshot()[0].paused is False
