"""What a participant writes down outlives a crash at any byte, and a coordinator waits until it has the result."""

import time
from pathlib import Path

import numpy as np
import pytest

from fleet.abuse import bare
from golden.sessions.page import APP
from golden.sessions.stage import CHUNK_BYTES, ROUNDS, stage
from koinon.errors import StoreError
from koinon.fleet.participant.keep import Keep, noted

LEAVES = {"params.w": np.float32([0.25, -0.5]), "params.b": np.float32(0.125), "state.batches": np.float32(2)}
LINES = [{"round": 1, "root": "a" * 70_000}, {"round": 2, "name": "é\u2028\n"}, {"round": 3}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of three lines."""
    keep = Keep(tmp_path)
    for line in LINES:
        keep.note("commits", "r-1", line)
    keep.close()
    return tmp_path / "commits" / "r-1.jsonl"


@pytest.mark.parametrize("lost", [0, 1, 2, 5, 13, 14, 15, 40, 60_000, 70_050])
def test_a_line_that_a_crash_cut_short_is_neither_read_nor_glued_to_the_next(path: Path, lost: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - lost])
    whole = data[: len(data) - lost].count(b"\n")
    keep = Keep(path.parents[1])
    assert keep.noted("commits", "r-1") == LINES[:whole]
    keep.note("commits", "r-1", {"round": 4})
    assert keep.noted("commits", "r-1") == [*LINES[:whole], {"round": 4}]
    keep.close()


def test_a_line_that_was_changed_names_its_file(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(StoreError, match=r"r-1\.jsonl is damaged"):
        noted(path.parents[1], "commits", "r-1")


def test_a_coordinator_serves_until_its_client_has_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was told that the run is over may still be fetching the model, at any speed."""
    with stage(tmp_path / "coordinator", monkeypatch) as coordinator:
        party = bare.Party(f"http://127.0.0.1:{coordinator.port}", "slow", bare.Key("ed25519"))
        for answer in (party.enrol(f"#token={coordinator.token}"), party.begin()):
            assert answer.status == 200
        run = party.call("GET", "/v1/runs").json["runs"][0]["run"]
        party.join({"run": run, "app": APP})
        for _ in range(ROUNDS):
            coordinator.settle()
            work = party.work(run).json
            data = bare.file_of(LEAVES, {"loss": np.float32(1), "examples": np.float32(8)})
            assert bare.Update(party, run, work, data, CHUNK_BYTES).send().status == 200
        coordinator.settle()
        work = party.work(run).json
        assert work["state"] == "finished"
        time.sleep(0.5)  # five times as long as it takes a coordinator to see that all have been told
        assert party.call("GET", f"/v1/blobs/{work['model']}").status == 200
        assert party.work(run, work["serial"], 0).status == 204  # and now the coordinator ends, as stage() sees
