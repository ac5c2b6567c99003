"""A process that was killed while it wrote a secret leaves a part of it: the next start deletes that."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.participant.keep import Keep
from koinon.fleet.wire.signatures import write_secret

KILLED = """
import os, pathlib, signal, sys
pathlib.Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
from koinon.fleet.wire.signatures import write_secret
write_secret(pathlib.Path(sys.argv[1]), b"half of a secret")
"""


def killed_while_writing(path: Path) -> None:
    """Leave what a process leaves that is killed just before its file is whole."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("start", "place"), [(Keep, "identity.key"), (Keep, "states/r-1.staged-2"), (FleetStore.open, "admin.json")]
)
def test_a_part_of_a_secret_is_gone_after_the_next_start(
    start: Callable[[Path], Keep | FleetStore], place: str, tmp_path: Path
) -> None:
    whole = tmp_path / "states" / ".whole"
    write_secret(whole, b"a whole secret")
    killed_while_writing(tmp_path / place)
    assert b"half of a secret" in [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    start(tmp_path).close()
    assert b"half of a secret" not in [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert whole.read_bytes() == b"a whole secret"


def test_a_secret_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "identity.key").mkdir()
    with pytest.raises(OSError):
        write_secret(tmp_path / "identity.key", b"half of a secret")
    assert [path.name for path in tmp_path.iterdir()] == ["identity.key"]
