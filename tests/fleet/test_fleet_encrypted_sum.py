"""An encrypted sum between real processes: the simulation's digest, whoever is killed; and no key holder, no number."""

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.processes import Fleet, Process, free_port, simulated

pytest.importorskip("tenseal", reason="needs koinon[he]")

APP = Path(__file__).parent / "encrypted_app.py"
MORTAL = str(Path(__file__).parent / "faults" / "mortal")
NAMES = ("lyon", "metz", "nice", "paris")


class Holder(Process):
    """A key holder's process, started again by the same line."""

    def __init__(self, folder: Path, name: str = "keyholder", options: tuple[str, ...] = ()) -> None:
        self.store = folder / name
        line = ["keyholder", "--dir", str(self.store), "--listen", f"127.0.0.1:{free_port()}", *options]
        super().__init__(name, line, folder)

    def serve(self) -> None:
        """Start it, and return when it has said what it has to say."""
        self.start()
        ends = time.monotonic() + 30
        while "no external review" not in self.said():
            assert self.alive, self.said()
            assert time.monotonic() < ends, self.said()
            time.sleep(0.05)

    @property
    def link(self) -> str:
        """What the coordinator is given."""
        return (self.store / "coordinator.link").read_text().strip()

    @property
    def key(self) -> str:
        """The fingerprint that the app pins."""
        return hashlib.sha256((self.store / "public.key").read_bytes()).hexdigest()


@contextmanager
def federation(
    folder: Path, holder: Holder, *, options: tuple[str, ...] = (), parties: tuple[str, ...] = NAMES, **environment: str
) -> Iterator[Fleet]:
    """Yield a coordinator with a key holder, and its parties at work."""
    environment["HOLDER"] = holder.key
    serve = ("--stay", "--keyholder", holder.link, *options)
    with Fleet(folder, APP, tls=True, serve=serve, environment=environment) as fleet:
        fleet.serve()
        for name in parties:
            fleet.join(name)
        yield fleet


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    """A key holder that serves."""
    one = Holder(tmp_path)
    one.serve()
    yield one
    one.kill()


def mortal(process: Process, folder: Path, dies_at: int) -> None:
    """Let a process die, when it is started again, just before it changes a file for the ``dies_at``-th time."""
    process.environment["PYTHONPATH"] = os.pathsep.join([MORTAL, process.environment["PYTHONPATH"]])
    process.environment |= {"DIES_AT": str(dies_at), "DIES_UNDER": str(folder)}


def receipts(folder: Path) -> list[dict[str, object]]:
    """Return the receipts that a party has."""
    (noted,) = (folder / "receipts").iterdir()
    return [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]


def test_the_key_holder_decrypts_the_sum_of_the_simulation_whoever_dies(tmp_path: Path, holder: Holder) -> None:
    with federation(tmp_path, holder, ROUNDS="8") as fleet:
        fleet.reaches(1, 60)
        holder.kill()
        mortal(holder, holder.store, 9)  # what it decrypts is written down, and the answer has not left
        assert holder.start().wait(60) == -signal.SIGKILL, holder.said()
        holder.environment["DIES_AT"] = "0"
        fleet.participants["lyon"].kill()
        fleet.until("the run says what it waits for", lambda: "key holder" in str(fleet.run()["waits_for"]), 30)
        fleet.coordinator.kill()
        holder.serve()
        fleet.serve()
        fleet.participants["lyon"].start()
        digest = fleet.finishes(100)
        assert all(row["cohort"] == 4 and not row["lost"] for row in fleet.run()["history"])
        fleet.until("paris has it all", lambda: len(receipts(tmp_path / "paris")) == 8, 30)
    assert digest == simulated(APP, tmp_path, (), {"HOLDER": holder.key, "ROUNDS": "8"})
    for receipt in receipts(tmp_path / "paris"):
        assert receipt["aggregate"]
        assert [entry["commit"]["weight"] for entry in receipt["train"]] == [1] * 4  # type: ignore[index, attr-defined]


def test_another_key_holder_is_waited_for_and_not_believed(tmp_path: Path, holder: Holder) -> None:
    other = Holder(tmp_path, "other")
    other.serve()
    key, link = holder.key, other.link
    try:
        with Fleet(tmp_path, APP, tls=True, serve=("--keyholder", link), environment={"HOLDER": key}) as fleet:
            fleet.serve()
            for name in NAMES:
                fleet.join(name)
            said = f"the key holder of the app, whose key is {key}"
            fleet.until("the run waits", lambda: said in str(fleet.run()["waits_for"]), 60)
            assert fleet.rounds() <= 0
    finally:
        other.kill()


def test_nobody_serves_what_nobody_can_decrypt(tmp_path: Path, holder: Holder) -> None:
    with Fleet(tmp_path, APP, environment={"HOLDER": holder.key}) as fleet:
        assert fleet.coordinator.start().wait(60) == 2
        assert "nobody is named who decrypts" in fleet.coordinator.said()
