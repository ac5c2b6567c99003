"""The examples run as their users start them, shortened."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def short(name: str, *changes: str, cwd: Path, **variables: str) -> dict:
    """Run two rounds of an example and return what it prints."""
    command = [sys.executable, "-c", "from koinon.cli.main import main; main()", "run", str(EXAMPLES / name), "--json"]
    command += [word for change in ("stop.rounds=2", *changes) for word in ("--set", change)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["rounds"] == 2
    return result["metrics"]


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'short("{path.name}"' not in tested] == []


def test_heart(tmp_path: Path) -> None:
    metrics = short("heart.py", "seed=3", cwd=tmp_path)
    assert 0.5 < metrics["accuracy"] < 1


@pytest.mark.keras
def test_images_made_in_the_file(tmp_path: Path) -> None:
    metrics = short("images.py", "evaluation.every=2", cwd=tmp_path)
    assert metrics["test_loss"] < 2.4


@pytest.mark.keras
@pytest.mark.slow  # tests/unit/test_sources.py reads such files
def test_images_of_files(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for part, rows in (("train", 200), ("t10k", 40)):
        images = draw.integers(0, 256, (rows, 28, 28)).astype(np.uint8)
        labels = (np.arange(rows) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    metrics = short("images.py", "evaluation.every=2", cwd=tmp_path, IMAGES=str(tmp_path))
    assert np.isfinite(metrics["test_loss"])


@pytest.mark.keras
def test_text_of_the_file_beside_it(tmp_path: Path) -> None:
    metrics = short("text.py", cwd=tmp_path)
    assert metrics["loss"] < np.log(96)


@pytest.mark.keras
@pytest.mark.slow
def test_text_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text("\n\n".join(f"ROLE {i % 2}:\n{'the same line ' * 9}{i}" for i in range(6)))
    metrics = short("text.py", "server.learning_rate=0.1", cwd=tmp_path, TEXT=str(tmp_path / "play.txt"))
    assert np.isfinite(metrics["loss"])
