"""kill -9 in the middle of a large upload, of either side: it goes on at the chunk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.faults.proxy import FaultyProxy
from fleet.faults.wires import Wire, slow
from fleet.processes import Fleet, through

LARGE = {"BALLAST": "500000"}  # 2 MB
CHUNK = 64 << 10
CHUNKS = 31
CHANGES = ("stop.rounds=2",)


@pytest.mark.parametrize(
    "victims",
    [["lyon", "coordinator"], *(pytest.param([name], marks=pytest.mark.slow) for name in ("lyon", "coordinator"))],
    ids="-".join,
)
def test_a_killed_upload_goes_on_at_the_chunk(
    victims: list[str], app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    serve = ("--stay", "--chunk-bytes", str(CHUNK))
    with (
        Fleet(tmp_path, app, changes=CHANGES, serve=serve, environment=LARGE) as fleet,
        FaultyProxy(fleet.port) as counted,
        Wire(counted.port, slow(500_000.0)) as wire,
    ):
        fleet.serve()
        fleet.join("lyon", link=through(fleet.invite("lyon"), wire.port))
        for name in NAMES[1:]:
            fleet.join(name)
        for victim in [{"coordinator": fleet.coordinator, **fleet.participants}[name] for name in victims]:
            there = len(counted.kept)
            fleet.until("some chunks are there", lambda there=there: len(counted.kept) >= there + 6, 60)
            victim.kill()
            assert len(counted.kept) < CHUNKS, "the upload was over before the kill: make it slower"
            victim.start()
        digest = fleet.finishes(120)
    check_sent_once(counted, len(victims))
    assert digest == undisturbed(*CHANGES, **LARGE)


def check_sent_once(counted: FaultyProxy, kills: int) -> None:
    """Assert that every chunk came, and none twice but the one that a kill found on its way."""
    paths = {path: times for path, times in counted.kept.items() if "/rounds/1/train/" in path}
    assert len(paths) == CHUNKS
    assert sum(paths.values()) <= CHUNKS + kills, {path: times for path, times in paths.items() if times > 1}
