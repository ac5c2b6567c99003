"""TensorBoard's files hold what the run did: read back record by record, and as TensorBoard itself reads them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tracking_samples import fit, fit_cut_short, logged

import koinon as kn

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")


def events(folder: Path) -> Iterator[Any]:
    """Yield every event of a run's files, oldest file first: length, its checksum, event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        rest = path.read_bytes()
        while rest:
            (length,) = struct.unpack("<Q", rest[:8])
            yield Event.FromString(rest[12 : 12 + length])
            rest = rest[16 + length :]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return each scalar's steps and values, without what a later session has purged."""
    from tensorboardX.proto.event_pb2 import SessionLog

    out: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            out = {name: [pair for pair in pairs if pair[0] < event.step] for name, pairs in out.items()}
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                out.setdefault(value.tag, []).append((event.step, value.simple_value))
    return out


def texts(folder: Path) -> dict[str, list[str]]:
    """Return what each text said, oldest first."""
    out: dict[str, list[str]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.WhichOneof("value") == "tensor":
                out.setdefault(value.tag.partition("/")[0], []).append(value.tensor.string_val[0].decode())
    return out


def only(folder: Path) -> Path:
    """Return the one run in a folder."""
    (run,) = folder.iterdir()
    return run


def rounded(figures: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """Return the figures as an event file holds them: in single precision."""
    return {name: [(step, float(np.float32(value))) for step, value in pairs] for name, pairs in figures.items()}


def test_every_figure_of_every_round_is_in_the_file(tmp_path: Path) -> None:
    run = fit([kn.TensorBoard(tmp_path)], rounds=5)
    assert scalars(only(tmp_path)) == rounded(logged(run))
    said = texts(only(tmp_path))
    assert said["digest"] == [run.digest]
    assert said["stopped"] == [run.stopped]
    identity = json.loads(said["identity"][0].strip("`").removeprefix("json"))
    assert identity["algorithm"]["name"] == run.plan.algorithm.name
    assert identity["clients"] == 2


def test_a_resumed_run_has_neither_a_hole_nor_a_double(tmp_path: Path) -> None:
    fit_cut_short([kn.TensorBoard(tmp_path / "runs")], tmp_path / "kept", after=4)
    assert [step for step, _ in scalars(only(tmp_path / "runs"))["train_loss"]] == [1, 2, 3]
    time.sleep(1.1)  # or the second file has the name of the first one, and takes its place
    run = fit([kn.TensorBoard(tmp_path / "runs")], tmp_path / "kept", rounds=6)
    assert len(list(only(tmp_path / "runs").iterdir())) == 2
    assert scalars(only(tmp_path / "runs")) == rounded(logged(run))


def test_tensorboard_itself_reads_a_resumed_run_whole(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit_cut_short([kn.TensorBoard(tmp_path / "runs")], tmp_path / "kept", after=4)
    time.sleep(1.1)  # or the second file has the name of the first one, and takes its place
    run = fit([kn.TensorBoard(tmp_path / "runs")], tmp_path / "kept", rounds=6)
    assert len(list(only(tmp_path / "runs").iterdir())) == 2
    read = reader.EventAccumulator(str(only(tmp_path / "runs")))
    read.Reload()
    found = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert found == rounded(logged(run))


def test_a_figure_that_is_not_finite_is_left_out_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from koinon.core.events import RoundFinished, RoundRecord, RunStarted

    sink = kn.TensorBoard(tmp_path)
    sink(RunStarted("fedavg", 2, 1, 0, run="one"))
    sink(RoundFinished(RoundRecord(1, 2, {}, {"auc": float("nan"), "loss": 0.5}, 0.1)))
    sink.close()
    assert scalars(tmp_path / "fedavg-one")["loss"] == [(1, 0.5)]
    assert "auc" not in scalars(tmp_path / "fedavg-one")
    assert caplog.records == []


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    run = fit([kn.TensorBoard(tmp_path / "file")])
    assert run.rounds == 3
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"TensorBoard({str(tmp_path / 'file')!r}) is dropped: ")


def test_a_name_that_somebody_chose_stays_within_the_folder(tmp_path: Path) -> None:
    from koinon.core.events import RunStarted

    sink = kn.TensorBoard(tmp_path / "runs")
    sink(RunStarted("../../outside alone", 2, 1, 0, run="one"))
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert only(tmp_path / "runs").is_dir()


def test_the_command_line_tracks_and_prints_the_same(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import numpy as np\nimport koinon as kn\n"
        "def train(params, data, task):\n    return {'mean': data[0].mean(axis=0)}, len(data[0]), {'loss': 0.5}\n"
        "app = kn.App(model=kn.OwnLoop(params={'mean': np.zeros(2)}, train=train), stop=kn.Stop(rounds=3),\n"
        "    clients={name: (np.ones((4, 2)), np.zeros(4)) for name in ('paris', 'lyon')})\n"
    )
    line = ["run", "app.py", "--track", "tensorboard:one", "--track", "tensorboard:two", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from koinon.cli.main import main; main()", *line],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 3
    for folder in ("one", "two"):
        assert scalars(only(tmp_path / folder))["train_loss"] == [(1, 0.5), (2, 0.5), (3, 0.5)]
