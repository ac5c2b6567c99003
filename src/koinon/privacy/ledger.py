"""The ledger: every release about one data set, on disk before it happens.

A file of JSON lines that is only ever appended to: what it is about, then one line for each round of each run. A line is
written under a lock and synced; a round that is there already is not written again, so a round that is repeated
after a crash counts once.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koinon.errors import StoreError
from koinon.privacy.mechanism import Adjacency, Event

FORMAT = 1


@dataclass(frozen=True)
class Scope:
    """What a ledger counts for: the data set by its fingerprint, whom it protects, which data sets are adjacent."""

    data: str
    adjacency: Adjacency
    unit: str

    def to_json(self) -> dict[str, Any]:
        """Return the header of a ledger."""
        return {"format": FORMAT, "data": self.data, "unit": self.unit, "adjacency": self.adjacency.value}


@dataclass(frozen=True)
class Entry:
    """One round of one run: ``times`` releases of one kind. ``secret`` is False where its keys came from a seed."""

    run: str
    round: int
    event: Event
    secret: bool = True
    times: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a line."""
        times = {} if self.times == 1 else {"times": self.times}
        return {"run": self.run, "round": self.round, **self.event.to_json(), **times, "secret": self.secret}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Entry:
        """Return the entry of :meth:`to_json`."""
        event, times = Event.from_json(found), int(found.get("times", 1))
        if times < 1:
            raise ValueError("a round has a release at least")
        return cls(str(found["run"]), int(found["round"]), event, bool(found["secret"]), times)

    @property
    def line(self) -> str:
        """The line of the ledger's file."""
        return json.dumps(self.to_json())


Spent = Mapping[Event, int]
"""How often each event has happened."""


class Ledger:
    """The releases about one data set: in a file, or in memory where ``path`` is None."""

    def __init__(self, path: Path | None, scope: Scope) -> None:
        self._path, self._scope = path, scope
        self._entries: dict[tuple[str, int], Entry] = {}
        self._read = 0  # bytes of the file that are in ``_entries``

    @property
    def spent(self) -> Spent:
        """Every event that is written down, and how often."""
        spent = Counter[Event]()
        for entry in list(self._entries.values()):  # another thread may add to them
            spent[entry.event] += entry.times
        return spent

    @property
    def secret(self) -> bool:
        """Whether every release was made with secret keys."""
        return all(entry.secret for entry in list(self._entries.values()))

    def __len__(self) -> int:
        """Return how many rounds are written down."""
        return len(self._entries)

    def refresh(self) -> None:
        """Read what is written. Raises StoreError for a file that is no ledger, or one of something else."""
        if self._path is not None and self._path.exists():
            with self._locked(os.O_RDONLY) as file:
                self._catch_up(file)

    def spend(self, entry: Entry, refuse: Callable[[Spent], str | None]) -> str | None:
        """Write an entry down and return None, or return why ``refuse`` will not have it; a known one is left as it is.

        When this returns the entry is on the disk. Raises StoreError where it cannot be written.
        """
        if self._path is None:
            return self._decide(entry, refuse, None)
        with self._locked(os.O_RDWR | os.O_CREAT) as file:
            self._catch_up(file)
            return self._decide(entry, refuse, file)

    def _decide(self, entry: Entry, refuse: Callable[[Spent], str | None], file: int | None) -> str | None:
        known = self._entries.get((entry.run, entry.round))
        if known is not None:
            if known != entry:
                raise StoreError(
                    f"{self._path} has round {entry.round} of this run as {known.event}, and now it is {entry.event}. "
                    "A round cannot be repeated otherwise: go on with the settings that the run was begun with."
                )
            return None
        if (reason := refuse(self.spent)) is None:
            if file is not None:
                self._append(file, entry.to_json())
            self._entries[entry.run, entry.round] = entry
        return reason

    def _catch_up(self, file: int) -> None:
        """Read the lines that are new, and cut off one that a crash left unfinished: its release never happened."""
        os.lseek(file, self._read, os.SEEK_SET)
        new = b"".join(iter(lambda: os.read(file, 1 << 20), b""))
        whole = new[: new.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines()):
            self._take(line, header=not self._read and not number)
        self._read += len(whole)

    def _take(self, line: bytes, *, header: bool) -> None:
        try:
            found = json.loads(line)
            if header and "format" in found:
                self._check(found)
                return
            if header:
                raise ValueError("it does not say what it is about")
            entry = Entry.from_json(found)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._path} is not a privacy ledger, or is damaged: {line[:60]!r}. Restore it from a copy; without it "
                "nobody knows what the data set has been charged."
            ) from error
        self._entries[entry.run, entry.round] = entry

    def _check(self, header: Mapping[str, Any]) -> None:
        for name, asked in self._scope.to_json().items():
            if header.get(name) != asked:
                raise StoreError(
                    f"{self._path} is a ledger of another {name}: it has {header.get(name)!r}, and this run has {asked!r}. "
                    "Name another ledger, or go back to what it was made for."
                )

    def _append(self, file: int, *values: Mapping[str, Any]) -> None:
        lines = [] if self._read else [self._scope.to_json()]
        text = "".join(json.dumps(value) + "\n" for value in (*lines, *values)).encode()
        os.ftruncate(file, self._read)
        if os.pwrite(file, text, self._read) != len(text):
            raise OSError("the disk is full")
        os.fsync(file)
        if not self._read:
            assert self._path is not None
            _sync_folder(self._path.parent)
        self._read += len(text)

    @contextmanager
    def _locked(self, flags: int) -> Iterator[int]:
        assert self._path is not None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, flags | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX if flags & os.O_RDWR else fcntl.LOCK_SH)
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise StoreError(
                f"The privacy ledger {self._path} cannot be used: {error}. No release happens that it does not have: "
                "make it writable, then run the same line again."
            ) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
