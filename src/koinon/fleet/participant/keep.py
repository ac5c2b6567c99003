"""What a participant keeps on its own disk: its key, its coordinator, its state between rounds, its receipts.

State of a round is staged beside the old, and takes its place only when the coordinator has committed the round with
this participant's update in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from koinon.errors import ProtocolError, StoreError
from koinon.fleet.wire.signatures import OwnKey, forget_partial, write_secret
from koinon.privacy.secure_sum.roster import Roster
from koinon.store.blobs import pack, unpack
from koinon.store.lock import lock
from koinon.tree import Tree

_BLOCK = 1 << 16

_STAGED, _MADE = "staged", "made"
ENROLLED = "coordinator.json"
COMMITS = "commits"


@dataclass(frozen=True)
class Enrolled:
    """Where a participant has enrolled, and as whom."""

    url: str
    authority: str | None  # PEM
    client: str
    name: str
    coordinator: str  # public key, base64url


class Keep:
    """A participant's folder, locked: one process has an identity at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = lock(folder)
        for place in (folder, folder / "states"):
            forget_partial(place)
        self.key = OwnKey.at(folder / "identity.key")
        self._answers: dict[str, dict[tuple[int, str], str]] = {}

    def enrolled(self) -> Enrolled | None:
        """Return where this participant has enrolled, or None. Raises StoreError if that cannot be read."""
        return enrolled(self.folder)

    def enrol(self, enrolled: Enrolled) -> None:
        """Remember where this participant has enrolled."""
        write_secret(self.folder / ENROLLED, json.dumps(asdict(enrolled), indent=1).encode())

    def state(self, run: str) -> Tree | None:
        """Return what the last counted round left, or None."""
        path = self._state(run)
        return unpack(path.read_bytes()) if path.exists() else None

    def begin(self, run: str, state: Tree) -> None:
        """Keep the state that a run begins with."""
        with _writing(self.folder):
            write_secret(self._state(run), pack(state))

    def stage(self, run: str, round: int, state: Tree) -> None:
        """Keep a round's state beside the old one until it is known whether the round counts."""
        with _writing(self.folder):
            write_secret(self._staged(run, round), pack(state))

    def decide(self, run: str, round: int, *, accepted: bool) -> None:
        """Take over what was staged for a committed round, or throw it away; older leftovers go, too."""
        with _writing(self.folder):
            if accepted and (staged := self._staged(run, round)).exists():
                staged.replace(self._state(run))
            folder = self.folder / "states"
            for name in os.listdir(folder) if folder.is_dir() else []:
                kind, _, number = name.rpartition(".")[2].partition("-")
                if name.startswith(f"{run}.") and kind in (_STAGED, _MADE) and int(number) <= round:
                    (folder / name).unlink(missing_ok=True)

    def kept_update(self, run: str, round: int, model: str) -> bytes | None:
        """Return the update of :meth:`keep_update`, or None."""
        path = self._made(run, round, model)
        return path.read_bytes() if path.exists() else None

    def keep_update(self, run: str, round: int, model: str, file: bytes) -> None:
        """Keep the file of an update that must not be made twice, until the round is decided."""
        with _writing(self.folder):
            write_secret(self._made(run, round, model), file)

    def accept_roster(self, roster: Roster) -> None:
        """Remember a roster as the latest. Raises ProtocolError for one that is older than what was accepted before."""
        path = self.folder / "rosters.json"
        serials = json.loads(path.read_text()) if path.exists() else {}
        known = serials.get(roster.federation, 0)
        if roster.serial < known:
            raise ProtocolError(
                f"Serial {known} of the roster {roster.federation!r} was used here, and this is {roster.serial}: an old one, with "
                "members that may have left. Get the latest."
            )
        with _writing(self.folder):
            write_secret(path, json.dumps({**serials, roster.federation: roster.serial}).encode())

    def secure_sum(self, run: str, purpose: str) -> bytes | None:
        """Return how far this participant has come in its secure sums, or None before the first."""
        path = self._secure_sum(run, purpose)
        return path.read_bytes() if path.exists() else None

    def keep_secure_sum(self, run: str, purpose: str, record: bytes) -> None:
        """Keep how far it has come, before anything that follows from it leaves."""
        with _writing(self.folder):
            write_secret(self._secure_sum(run, purpose), record)

    def model(self, name: str, data: bytes | memoryview) -> Path:
        """Keep a run's final model and return where."""
        path = self.folder / f"{name}.safetensors"
        with _writing(self.folder):
            write_secret(path, data)
        return path

    def note(self, kind: str, run: str, line: dict[str, Any]) -> None:
        """Append a line to the run's ``commits``, ``receipts`` or ``runs`` (which app it is, and how it ended)."""
        path = self.folder / kind / f"{run}.jsonl"
        with _writing(self.folder):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._append(path, line)
        if kind == COMMITS and run in self._answers:
            self._answers[run][line["round"], line["purpose"]] = line["model"]

    def answered(self, run: str, round: int, purpose: str) -> str | None:
        """Return the model that a round was answered for, or None; the disk is read once a run."""
        if run not in self._answers:
            lines = self.noted(COMMITS, run)
            self._answers[run] = {(line["round"], line["purpose"]): line["model"] for line in lines}
        return self._answers[run].get((round, purpose))

    def rounds_answered(self) -> int:
        """Return how many rounds were trained or judged in this folder, of all runs."""
        for path in (self.folder / COMMITS).glob("*.jsonl"):
            self.answered(path.stem, 0, "")
        return sum(len({round for round, _ in own}) for own in self._answers.values())

    @staticmethod
    def _append(path: Path, line: dict[str, Any]) -> None:
        with path.open("a+b") as file:
            file.truncate(_whole_lines(file))
            file.write(json.dumps(line, sort_keys=True).encode() + b"\n")

    def noted(self, kind: str, run: str) -> list[dict[str, Any]]:
        """Return the lines of :meth:`note`; a last one that a crash cut short is left out."""
        return noted(self.folder, kind, run)

    def close(self) -> None:
        """Give the folder free. Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _state(self, run: str) -> Path:
        return self.folder / "states" / f"{run}.safetensors"

    def _staged(self, run: str, round: int) -> Path:
        return self.folder / "states" / f"{run}.{_STAGED}-{round}"

    def _secure_sum(self, run: str, purpose: str) -> Path:
        return self.folder / "states" / f"{run}.{purpose}.secure-sum"

    def _made(self, run: str, round: int, model: str) -> Path:
        return self.folder / "states" / f"{run}.{model[:16]}.{_MADE}-{round}"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the disk says into what a person can do."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}. Make room there.") from error


def enrolled(folder: Path) -> Enrolled | None:
    """Return where a folder's participant has enrolled, or None, also while its process runs. Raises StoreError."""
    path = folder / ENROLLED
    try:
        return Enrolled(**json.loads(path.read_text())) if path.exists() else None
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error!s:.80}. Restore it from a copy.") from error


def noted(folder: Path, kind: str, run: str) -> list[dict[str, Any]]:
    """Return what a participant's folder has noted of a run, also while its process runs. Raises StoreError."""
    path = folder / kind / f"{run}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    try:
        return [dict(json.loads(line)) for line in lines if line.endswith(b"\n")]
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error!s:.80}. Restore it from a copy.") from error


def _whole_lines(file: BinaryIO) -> int:
    """Return where the last whole line ends: a crash or a full disk may have cut one short."""
    place, block = file.seek(0, os.SEEK_END), 1  # most often the last byte says it
    while place:
        start = max(0, place - block)
        file.seek(start)
        end = file.read(place - start).rfind(b"\n")
        if end >= 0:
            return start + end + 1
        place, block = start, _BLOCK
    return 0
