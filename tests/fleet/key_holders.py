"""Key holders as real processes, which are let die while they write."""

import hashlib
import json
import os
import time
from pathlib import Path

from fleet.processes import Process, free_port

MORTAL = str(Path(__file__).parent / "faults" / "mortal")


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


def mortal(process: Process, folder: Path, dies_at: int) -> None:
    """Let a process die, when it is started again, just before it changes a file for the ``dies_at``-th time."""
    process.environment["PYTHONPATH"] = os.pathsep.join([MORTAL, process.environment["PYTHONPATH"]])
    process.environment |= {"DIES_AT": str(dies_at), "DIES_UNDER": str(folder)}


def decided(holder: Holder, name: str) -> dict[str, int]:
    """Return the last number of each run that a file of a key holder names."""
    found = json.loads((holder.store / name).read_text())
    return {run: n if isinstance(n, int) else n[0] for run, n in found.get("rounds", found).items()}
