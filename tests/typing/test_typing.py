"""The face is typed: what a user writes passes ``mypy --strict``, and mistakes do not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_the_face_is_typed_and_mistakes_are_seen() -> None:
    files = [str(HERE / name) for name in ("face.py", "mistakes.py")]
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *files]
    done = subprocess.run(
        command, cwd=ROOT, env={"MYPYPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
