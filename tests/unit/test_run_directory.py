"""A run on disk: whole rounds only, one writer, and a clear word about everything else."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from koinon import tree
from koinon.core.events import Checkpoint, RoundRecord
from koinon.errors import StoreError
from koinon.store.blobs import Blobs, pack, unpack
from koinon.store.run_directory import RunDirectory

IDENTITY = {"seed": 1, "algorithm": {"name": "fedavg", "work": {"epochs": 2}}}


def model(value: float) -> dict[str, object]:
    return {"params": {"w": np.full(4, value, np.float32), "b": np.float64(value)}, "state": {}}


def record(number: int) -> RoundRecord:
    return RoundRecord(number, 3, {"paris": ("params.w",)}, {"loss": 1 / number, "auc": float("nan")}, 0.5)


def checkpoint(number: int, best: dict[str, object]) -> Checkpoint:
    return Checkpoint(
        number,
        model(number),
        {"best": 0.5, "best_round": number},
        best,
        record(number) if number else None,
        {"paris": {"loss": 0.25}},
        np.array([number, 7]) if number else None,
        {"c": np.array([[number, 1.0], [number, 2.0]], np.float32)} if number else {},
    )


def test_what_was_committed_is_what_is_loaded(tmp_path: Path) -> None:
    best = model(9)
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        assert run.load() is None
        for number in range(4):
            run.commit(checkpoint(number, best))
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        saved = run.load()
        states = dict(run.client_states())
    assert saved is not None
    assert saved.checkpoint.round == 3
    assert tree.digest(saved.checkpoint.server) == tree.digest(model(3))
    assert saved.checkpoint.server["state"] == {}
    assert tree.digest(saved.checkpoint.best) == tree.digest(best)
    assert [r.round for r in saved.history] == [1, 2, 3]
    assert saved.history[2].refused == {"paris": ("params.w",)}
    assert np.isnan(saved.history[2].figures["auc"])
    assert saved.checkpoint.judged == {"paris": {"loss": 0.25}}
    assert sorted(states) == [1, 2, 3, 7], "only clients that took part have a row"
    np.testing.assert_array_equal(states[7]["c"], np.array([3.0, 2.0], np.float32))


def test_old_models_are_deleted_and_the_best_is_kept(tmp_path: Path) -> None:
    best = model(9)
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        for number in range(6):
            run.commit(checkpoint(number, best))
    assert len(list((tmp_path / "run" / "blobs").iterdir())) == 3


def test_a_round_that_was_not_committed_whole_is_not_there(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        run.commit(checkpoint(0, {}))
        broken = Checkpoint(1, model(1), {}, {}, record(1), {}, np.array([1]), {"c": np.array([object()])})
        with pytest.raises(Exception):  # noqa: B017 - whatever packing says
            run.commit(broken)
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        saved = run.load()
        assert saved is not None
        assert saved.checkpoint.round == 0
        run.commit(checkpoint(1, {}))


def test_another_app_is_refused_by_the_field_that_differs(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path / "run", IDENTITY).close()
    other = {"seed": 1, "algorithm": {"name": "fedavg", "work": {"epochs": 3}}}
    with pytest.raises(StoreError, match=r"another algorithm\.work\.epochs: it has 2, and this app has 3"):
        RunDirectory.open(tmp_path / "run", other)
    RunDirectory.open(tmp_path / "run", IDENTITY).close()


def test_a_directory_in_use_names_the_process_and_is_free_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from koinon.store.run_directory import RunDirectory\n"
        "run = RunDirectory.open(pathlib.Path(sys.argv[1]), {})\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(StoreError, match=rf"in use by another process \(number {other.pid}\)"):
            RunDirectory.open(tmp_path / "run", {})
        other.kill()
        other.wait()
    RunDirectory.open(tmp_path / "run", {}).close()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds other files \(thesis.txt\) and no run"):
        RunDirectory.open(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        run.describe(format=99)
    with pytest.raises(StoreError, match="format 99"):
        RunDirectory.open(tmp_path / "run", IDENTITY)


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        run.commit(checkpoint(0, {}))
    (blob,) = (tmp_path / "run" / "blobs").iterdir()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\xff")
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run, pytest.raises(StoreError, match="damaged"):
        run.load()


def test_a_folder_without_a_run_cannot_be_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        RunDirectory.read_only(tmp_path)


def test_reading_beside_a_writer_sees_whole_rounds(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        run.commit(checkpoint(0, {}))
        run.commit(checkpoint(1, {}))
        with RunDirectory.read_only(tmp_path / "run") as reader:
            saved = reader.load()
    assert saved is not None
    assert saved.checkpoint.round == 1


def test_a_journal_that_is_no_database_is_said_to_be_unusable(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="cannot be used: file is not a database"):
        RunDirectory.open(tmp_path, {})


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("a full disk needs the right to mount a small one")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=400k", "tmpfs", small], check=False).returncode:
        pytest.skip("this system does not let a small disk be mounted")
    try:
        large = {"params": {"w": np.random.default_rng(0).random(60_000)}, "state": {}}
        with RunDirectory.open(small / "run", IDENTITY) as run:
            run.commit(checkpoint(0, {}))
            with pytest.raises(StoreError, match="No space left on device.*every committed round is still there"):
                run.commit(Checkpoint(1, large, {}, {}, record(1), {}))
        with RunDirectory.open(small / "run", IDENTITY) as run:
            saved = run.load()
        assert saved is not None
        assert saved.checkpoint.round == 0
    finally:
        subprocess.run(["umount", small], check=True)


def test_blobs_are_named_by_their_content(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    assert blobs.write(model(1)) == blobs.write(model(1))
    assert blobs.write(model(1)) != blobs.write(model(2))
    with pytest.raises(StoreError, match="cannot be read"):
        blobs.read("0" * 64)


def test_trees_survive_packing_with_empty_branches_and_scalars() -> None:
    value = {"a": {"x": np.arange(3), "empty": {}}, "z": np.float64(2.5), "u": np.zeros((0, 2), np.uint32)}
    back = unpack(pack(value))
    assert tree.structure(back) == tree.structure(value)
    assert tree.digest(back) == tree.digest(value)


def test_the_journal_is_plain_sqlite(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", IDENTITY) as run:
        run.commit(checkpoint(0, {}))
        run.commit(checkpoint(1, {}))
    with sqlite3.connect(tmp_path / "run" / "journal.sqlite") as database:
        numbers = database.execute("SELECT number FROM rounds").fetchall()
    database.close()
    assert numbers == [(0,), (1,)]
