"""Copies of a coordinator's models at a URL: made behind the rounds, fetched when the files here are gone or damaged."""

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from processes import Fleet, simulated

from koinon.errors import ConfigurationError
from koinon.store import mirror as mirrors
from koinon.store.blobs import Blobs
from koinon.store.mirror import Mirror

fsspec = pytest.importorskip("fsspec")

APP = Path(__file__).parent / "faults" / "app.py"
NAMES = ("lyon", "nice", "paris")
SECONDS = 60.0
_NEWEST = "SELECT server FROM rounds ORDER BY number DESC LIMIT 1"
SLOW = {"STEP_SECONDS": "0.02"}


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The URL of an empty folder in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield "memory://copies"
    files.store.clear()


def names_at(url: str) -> set[str]:
    """Return which blobs lie at a URL."""
    files, folder = fsspec.core.url_to_fs(url)
    return {Path(path).stem for path in files.find(folder)}


def written(blobs: Blobs, *numbers: float) -> list[str]:
    """Write blobs and return their names."""
    return [blobs.write({"w": np.full(100, number)}) for number in numbers]


def test_what_is_wanted_is_copied_and_what_is_not_any_more_is_deleted(elsewhere: str, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    one, two, three = written(blobs, 1.0, 2.0, 3.0)
    fsspec.filesystem("memory").pipe("/copies/notes.txt", b"somebody's own")
    mirror = Mirror(blobs, elsewhere)
    mirror.want([one, two])
    mirror.close()
    assert names_at(elsewhere) == {one, two, "notes"}
    again = Mirror(blobs, elsewhere)
    again.want([two, three])
    again.close()
    assert names_at(elsewhere) == {two, three, "notes"}


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_blob_comes_back_bit_for_bit(elsewhere: str, tmp_path: Path, harm: str) -> None:
    blobs = Blobs(tmp_path / "blobs")
    (name,) = written(blobs, 1.0)
    mirror = Mirror(blobs, elsewhere)
    mirror.want([name])
    mirror.close()
    _harm(blobs.path(name), harm)
    assert not blobs.whole(name)
    assert Mirror(blobs, elsewhere).fetch(name)
    assert blobs.whole(name)


def test_a_copy_that_is_damaged_or_not_there_is_told_and_not_taken(elsewhere: str, tmp_path: Path) -> None:
    blobs, told = Blobs(tmp_path / "blobs"), list[str]()
    (name,) = written(blobs, 1.0)
    blobs.path(name).unlink()
    mirror = Mirror(blobs, elsewhere)
    mirror.on_trouble(told.append)
    assert not mirror.fetch(name)
    fsspec.filesystem("memory").pipe(f"/copies/{name}.safetensors", b"something else")
    assert not mirror.fetch(name)
    assert "FileNotFoundError" in told[0]
    assert "its content does not match its name" in told[1]
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_copy_that_fails_is_told_and_made_when_it_can_be(
    elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, told = Blobs(tmp_path / "blobs"), list[str]()
    one, two = written(blobs, 1.0, 2.0)
    kind = type(fsspec.filesystem("memory"))
    works, put = threading.Event(), kind.put_file

    def sometimes(self: object, here: str, there: str) -> None:
        if not works.is_set():
            raise PermissionError("the bucket is locked")
        put(self, here, there)

    monkeypatch.setattr(kind, "put_file", sometimes)
    monkeypatch.setattr(mirrors, "_LONGEST_PAUSE_SECONDS", 0.05)
    mirror = Mirror(blobs, elsewhere)
    mirror.on_trouble(told.append)
    mirror.want([one])
    _until(lambda: len(told) == mirrors._TRIES)  # then it is left to the next round
    assert all("PermissionError: the bucket is locked" in text for text in told)
    assert told[-1].endswith("with the next round.")
    assert names_at(elsewhere) == set()
    works.set()
    mirror.want([one, two])
    mirror.close()
    assert names_at(elsewhere) == {one, two}
    assert len(told) == mirrors._TRIES


def test_older_copies_are_kept_until_the_newer_ones_are_there(elsewhere: str, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    one, two = written(blobs, 1.0, 2.0)
    mirror = Mirror(blobs, elsewhere)
    mirror.want([one])
    _until(lambda: names_at(elsewhere) == {one})
    blobs.path(two).unlink()
    mirror.want([two])
    mirror.close()
    assert names_at(elsewhere) == {one}


def test_a_url_that_cannot_be_used_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(ConfigurationError, match="Give a URL of fsspec"):
        Mirror(blobs, "nowhere://copies")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigurationError, match=r"koinon\[remote\]"):
        Mirror(blobs, "memory://copies")


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_coordinator_that_has_lost_its_models_goes_on_from_their_copies(tmp_path: Path, harm: str) -> None:
    copies = tmp_path / "copies"
    with Fleet(tmp_path, APP, serve=("--blobs", copies.as_uri()), environment=SLOW) as fleet:
        fleet.serve()
        parties = [fleet.join(name) for name in NAMES]
        fleet.reaches(3, SECONDS)
        run = fleet.run()["run"]
        fleet.admin("POST", f"/v1/admin/runs/{run}/pause")
        fleet.until("the newest state is copied", lambda: _copied(fleet, copies / run), SECONDS)
        done = fleet.rounds()
        fleet.coordinator.kill()
        for path in (fleet.store / "runs" / run / "blobs").iterdir():
            _harm(path, harm)
        fleet.serve()
        assert fleet.rounds() == done
        fleet.admin("POST", f"/v1/admin/runs/{run}/resume")
        for party in parties:
            assert party.wait(SECONDS) == 0, fleet.story()
        assert fleet.coordinator.wait(SECONDS) == 0, fleet.story()
        digest = fleet.coordinator.said().rpartition("digest ")[2].strip()
        final = json.loads(_row(fleet, "SELECT ended FROM runs"))["model"]
        kept = Blobs(fleet.store / "runs" / run / "blobs")
        assert final in names_at((copies / run).as_uri())
        assert len(names_at((copies / run).as_uri())) <= 4
        kept.path(final).unlink()
        assert fleet.coordinator.start().wait(SECONDS) == 0, fleet.story()
        assert kept.whole(final)
    assert digest == simulated(APP, tmp_path)


@pytest.mark.slow
def test_copies_that_cannot_be_made_lose_no_round_and_are_told_the_operator(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--blobs", "file:///proc/nowhere", "--log-json"), environment=SLOW) as fleet:
        fleet.serve()
        parties = [fleet.join(name) for name in NAMES]
        shown = fleet.until("it is shown", lambda: _shown(fleet), SECONDS)
        assert "A model cannot be copied to --blobs" in shown
        assert fleet.run()["state"] != "paused", "no round waits for a copy"
        for party in parties:
            assert party.wait(SECONDS) == 0, fleet.story()
        assert fleet.coordinator.wait(SECONDS) == 0, fleet.story()
        said = fleet.coordinator.said()
    assert f"digest {simulated(APP, tmp_path)}" in said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert any("A model cannot be copied" in line["message"] for line in lines if line["event"] == "trouble")


def _copied(fleet: Fleet, folder: Path) -> bool:
    """Whether the newest state is copied, and stays the newest: a round that was nearly done ends under a pause."""
    newest = _row(fleet, _NEWEST)
    time.sleep(0.5)
    return newest == _row(fleet, _NEWEST) and newest in names_at(folder.as_uri())


def _row(fleet: Fleet, query: str) -> str:
    with closing(sqlite3.connect(fleet.store / "fleet.sqlite")) as database:
        return str(database.execute(query).fetchone()[0])


def _shown(fleet: Fleet) -> str:
    """Return what the operator is told of copies; nothing while all is well."""
    told = str(fleet.run()["waits_for"])
    return told if "cop" in told else ""


def _harm(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
