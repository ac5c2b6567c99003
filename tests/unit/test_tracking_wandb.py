"""W&B: what is in the offline folder that ``wandb sync`` uploads, read record by record; and what happens online."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracking_samples import fit, fit_cut_short, logged

import koinon as kn
from koinon.errors import UnsupportedError

pytest.importorskip("wandb", reason="wandb is not installed")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No account, no settings of this machine, no server: port 9 of this machine refuses."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    import wandb

    wandb.teardown()  # it has read the environment only once


def records(folder: Path) -> Iterator[Any]:
    """Yield the records of an offline folder: pieces with a header of seven bytes, none across 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data, at, whole = path.read_bytes(), 7, b""
    while at < len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(whole)
            whole = b""


def sessions(folder: Path) -> list[Path]:
    """Return the offline folders, oldest first, when W&B's own process has written them and ended."""
    import wandb

    wandb.teardown()
    return sorted((folder / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_mtime_ns)


def history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return each figure's steps and values, without W&B's own."""
    out: dict[str, list[tuple[int, float]]] = {}
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name = "/".join(item.nested_key) or item.key
                if not name.startswith("_"):
                    out.setdefault(name, []).append((record.history.step.num, json.loads(item.value_json)))
    return out


def values(items: Any) -> dict[str, Any]:
    """Return the values of a configuration or a summary."""
    return {item.key: json.loads(item.value_json) for item in items if item.key}


def test_every_figure_of_every_round_is_in_the_folder(tmp_path: Path) -> None:
    run = fit([kn.WeightsAndBiases("heart", folder=tmp_path, offline=True)], rounds=5)
    (folder,) = sessions(tmp_path)
    assert history(folder) == logged(run)
    (begun,) = [record.run for record in records(folder) if record.WhichOneof("record_type") == "run"]
    assert begun.project == "heart"
    config = values(begun.config.update)
    assert config["clients"] == 2
    assert config["algorithm"]["name"] == run.plan.algorithm.name
    summary = [item for record in records(folder) for item in record.summary.update]
    assert values(summary)["digest"] == run.digest
    assert values(summary)["stopped"] == run.stopped


def test_only_what_was_logged_leaves_the_machine(tmp_path: Path) -> None:
    fit([kn.WeightsAndBiases("heart", folder=tmp_path, offline=True)])
    (folder,) = sessions(tmp_path)
    kinds = {record.WhichOneof("record_type") for record in records(folder)}
    assert kinds <= {"header", "run", "config", "telemetry", "summary", "history", "exit"}
    (begun,) = [record.run for record in records(folder) if record.WhichOneof("record_type") == "run"]
    assert begun.host == ""
    assert begun.git.remote_url == ""
    assert [path for path in (folder / "files").iterdir() if path.stat().st_size] == []


def test_the_newest_session_of_a_resumed_run_holds_all_of_it_under_the_same_name(tmp_path: Path) -> None:
    fit_cut_short([kn.WeightsAndBiases("heart", folder=tmp_path / "runs", offline=True)], tmp_path / "kept", after=4)
    sink = kn.WeightsAndBiases("heart", folder=tmp_path / "runs", offline=True)
    run = fit([sink], tmp_path / "kept", rounds=6)
    first, second = sessions(tmp_path / "runs")
    assert [step for step, _ in history(first)["train_loss"]] == [1, 2, 3]
    assert history(second) == logged(run)
    identifiers = {record.run.run_id for folder in (first, second) for record in records(folder) if record.run.run_id}
    assert len(identifiers) == 1


def test_without_a_key_it_is_refused_and_nobody_is_asked() -> None:
    with pytest.raises(UnsupportedError, match="wandb login.*WANDB_MODE=offline"):
        kn.WeightsAndBiases("heart")


def test_the_environment_may_say_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    fit([kn.WeightsAndBiases("heart", folder=tmp_path)])
    assert len(sessions(tmp_path)) == 1


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)  # nobody's
    sink = kn.WeightsAndBiases("heart", folder=tmp_path)
    began = time.perf_counter()
    run = fit([sink])
    assert time.perf_counter() - began < 20
    assert run.rounds == 3
    (said,) = [record.getMessage() for record in caplog.records if record.name == "koinon.track"]
    assert said.startswith("WeightsAndBiases('heart') is dropped: ")
