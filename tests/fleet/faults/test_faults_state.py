"""What a client keeps between rounds, when it hears late or never how a round ended."""

import threading
from pathlib import Path

from fleet.faults.app import NAMES
from fleet.faults.wires import Wire
from fleet.processes import Fleet, through

STATEFUL = {"ALGORITHM": "scaffold"}
CHANGES = (
    "schedule.shortest=3.0", "schedule.longest=3.0", "schedule.quorum=0.5", "schedule.clients=2", "evaluation.every=100", "stop.rounds=3",
)  # fmt: skip


def test_a_state_that_counted_is_kept_though_its_client_was_away_when_that_became_known(
    app: Path, tmp_path: Path
) -> None:
    """Its update of round 2 is in the sum, and round 3 is over before it is back."""
    with (
        Fleet(tmp_path, app, changes=CHANGES, serve=("--stay",), environment=STATEFUL) as fleet,
        Wire(fleet.port, lambda piece: last_words(piece), lambda piece: answered(piece)) as wire,
    ):
        sent, cut = threading.Event(), threading.Event()

        def last_words(piece: bytes) -> bytes:
            if b"/rounds/2/train/update?" in piece:
                sent.set()
            return piece

        def answered(piece: bytes) -> bytes | None:
            if sent.is_set() and not cut.is_set():  # its update is counted, and it does not hear so
                cut.set()
                wire.cut()
            return piece if wire.whole else None

        fleet.serve()
        lyon = fleet.join("lyon", link=through(fleet.invite("lyon"), wire.port))
        fleet.until("lyon has joined", lambda: "Joined" in lyon.said(), 30)
        for name in NAMES[1:]:
            fleet.join(name)
        fleet.finishes(60)
        assert fleet.run()["history"][1]["lost"] == {}
        assert list(fleet.run()["history"][2]["lost"]) == ["lyon"]
        (staged,) = (tmp_path / "lyon" / "states").glob("*.staged-2")
        counted = staged.read_bytes()
        wire.mend()
        assert lyon.wait(60) == 0, fleet.story()
        (kept,) = (tmp_path / "lyon" / "states").iterdir()
        assert kept.read_bytes() == counted
