"""A run on disk: one SQLite journal, one folder of blobs, one lock. Killed at any moment, it goes on.

A round is one transaction: its record, the names of its blobs (written and synced before) and the new rows
of client state. Whoever reads the directory later sees whole rounds only.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from koinon import tree
from koinon.core.events import Checkpoint, RoundRecord
from koinon.errors import StoreError
from koinon.store.blobs import Blobs, pack, unpack
from koinon.store.lock import lock
from koinon.tree import Array, Tree

FORMAT = 1
JOURNAL = "journal.sqlite"
LEDGER = "privacy-ledger.jsonl"
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rounds (number INTEGER PRIMARY KEY, record TEXT, server TEXT NOT NULL, best TEXT, watch TEXT NOT NULL);
CREATE TABLE states (client INTEGER PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE judged (client TEXT PRIMARY KEY, figures TEXT NOT NULL) WITHOUT ROWID;
"""
_SECRETS = "CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True)
class Saved:
    """What a run directory holds."""

    checkpoint: Checkpoint
    history: tuple[RoundRecord, ...]


class RunDirectory:
    """Where one run is kept. Implements Journal.

    Open it for writing with :meth:`open`, which locks it, or for reading with :meth:`read_only`.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection, lock: int) -> None:
        self.folder = folder
        self._database = database
        self._lock = lock
        self._blobs = Blobs(folder / "blobs")
        self._best: tuple[Tree, str | None] = ({}, None)

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any]) -> RunDirectory:
        """Lock the directory for this process; make it, or check that it holds a run of the same ``identity``.

        Raises StoreError if another process has it, if it holds something else, or if the identity differs.
        """
        with ExitStack() as undo:
            held = _locked(folder)
            undo.callback(os.close, held)
            database = _database(folder)
            undo.callback(database.close)
            self = cls(folder, database, held)
            self._identify(json.loads(json.dumps(identity)))
            undo.pop_all()
        return self

    @classmethod
    def read_only(cls, folder: Path) -> RunDirectory:
        """Open a run to look at it, also while another process writes it."""
        if not (folder / JOURNAL).is_file():
            raise StoreError(f"{folder} holds no run: there is no {JOURNAL} in it. Name a folder given to --out.")
        with _speaking(folder), ExitStack() as undo:
            database = sqlite3.connect(f"file:{folder / JOURNAL}?mode=ro", uri=True, isolation_level=None)
            undo.callback(database.close)
            database.execute("SELECT * FROM about").fetchall()
            undo.pop_all()
        return cls(folder, database, -1)

    def commit(self, checkpoint: Checkpoint) -> None:
        """Write a round down, all of it or nothing."""
        server = self._blobs.write(checkpoint.server)
        if checkpoint.best is not self._best[0]:
            name = self._blobs.write(checkpoint.best) if tree.leaves(checkpoint.best) else None
            self._best = (checkpoint.best, name)
        record = None if checkpoint.record is None else json.dumps(checkpoint.record.to_json())
        row = (checkpoint.round, record, server, self._best[1], json.dumps(checkpoint.watch))
        with _speaking(self.folder), self._transaction() as database:
            database.execute("INSERT INTO rounds VALUES (?, ?, ?, ?, ?)", row)
            if checkpoint.clients is not None:
                database.executemany(
                    "INSERT INTO states VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
                    _state_rows(checkpoint.clients, checkpoint.states),
                )
            database.execute("DELETE FROM judged")
            database.executemany(
                "INSERT INTO judged VALUES (?, ?)",
                ((name, json.dumps(figures)) for name, figures in checkpoint.judged.items()),
            )
            kept = database.execute("SELECT server FROM rounds ORDER BY number DESC LIMIT 2").fetchall()
        self._blobs.keep([name for name in (*(row[0] for row in kept), self._best[1]) if name])

    def load(self) -> Saved | None:
        """Return the last committed round and the history before it, or None for a new run."""
        with _speaking(self.folder):
            rows = self._database.execute("SELECT number, record, server, best, watch FROM rounds ORDER BY number")
            rounds = rows.fetchall()
            judged = dict(self._database.execute("SELECT client, figures FROM judged").fetchall())
        if not rounds:
            return None
        number, _, server, best, watch = rounds[-1]
        history = tuple(RoundRecord.from_json(json.loads(row[1])) for row in rounds if row[1] is not None)
        self._best = (self._blobs.read(best) if best else {}, best)
        checkpoint = Checkpoint(
            number,
            self._blobs.read(server),
            json.loads(watch),
            self._best[0],
            history[-1] if history else None,
            {name: json.loads(figures) for name, figures in judged.items()},
        )
        return Saved(checkpoint, history)

    def client_states(self) -> Iterator[tuple[int, Tree]]:
        """Yield every kept client's position and state, one at a time."""
        with _speaking(self.folder):
            for client, state in self._database.execute("SELECT client, state FROM states ORDER BY client"):
                yield client, unpack(state)

    def describe(self, **values: Any) -> None:
        """Keep what a report says about the run: JSON values by name."""
        with _speaking(self.folder), self._transaction() as database:
            for name, value in values.items():
                database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def about(self) -> dict[str, Any]:
        """Return everything kept by :meth:`describe`, the identity and the format among it."""
        with _speaking(self.folder):
            rows = self._database.execute("SELECT name, value FROM about").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return a secret of the run, made when it is first asked for and on the disk before it is used."""
        with _speaking(self.folder), self._transaction() as database:
            database.execute(_SECRETS)  # earlier releases of this format had no such table
            database.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, make()))
            row = database.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
        return bytes(row[0])

    @property
    def private(self) -> bool:
        """Whether the run has secrets, because it adds noise."""
        with _speaking(self.folder):
            return self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'secrets'").fetchone() is not None

    def close(self) -> None:
        """Give the directory free. Safe to call twice."""
        self._database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _identify(self, identity: dict[str, Any]) -> None:
        about = self.about()
        if "identity" not in about:
            self.describe(format=FORMAT, identity=identity)
            return
        if about["format"] != FORMAT:
            raise StoreError(
                f"{self.folder} was written in format {about['format']}, and this koinon reads format {FORMAT}. "
                "Use the koinon it was made with, or another --out folder."
            )
        different = difference(about["identity"], identity)
        if different is not None:
            where, found, asked = different
            raise StoreError(
                f"{self.folder} holds a run with another {where}: it has {short(found)}, and this app has "
                f"{short(asked)}. Give the run of this app another --out folder, or go back to what the run was made with."
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _locked(folder: Path) -> int:
    """Return the folder's lock. Raises StoreError if it is in use, or holds other things than a run."""
    strangers = [path.name for path in folder.iterdir() if path.name not in _OWN] if folder.is_dir() else []
    if strangers and not (folder / JOURNAL).exists():
        raise StoreError(f"{folder} holds other files ({strangers[0]}) and no run. Choose an empty or a new folder.")
    return lock(folder)


_OWN = frozenset({JOURNAL, f"{JOURNAL}-wal", f"{JOURNAL}-shm", LEDGER, "blobs", "lock", "report.html"})


def _database(folder: Path) -> sqlite3.Connection:
    """Open the journal, for its owner's eyes only: who has the secrets of a private run can undo its noise."""
    with _speaking(folder), ExitStack() as undo:
        os.close(os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT, 0o600))
        for path in folder.glob(f"{JOURNAL}*"):  # the log that SQLite writes first gets the mode of the journal
            path.chmod(0o600)
        database = sqlite3.connect(folder / JOURNAL, isolation_level=None, timeout=30)
        undo.callback(database.close)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
        database.execute("COMMIT")
        undo.pop_all()
    return database


@contextmanager
def _speaking(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into what a person can do."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"The journal in {folder} cannot be used: {error}. If the disk is full, make room; if the file is damaged, "
            "restore it from a copy. Then run the same line again: every committed round is still there."
        ) from error


def _state_rows(clients: Array, states: Tree) -> Iterator[tuple[int, bytes]]:
    rows = tree.to_numpy(states)
    for i, client in enumerate(np.asarray(clients).tolist()):
        yield client, pack(tree.map(lambda x, i=i: x[i], rows))


def difference(found: Any, asked: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Return the first place where two JSON values differ, and both values there."""
    if isinstance(found, dict) and isinstance(asked, dict):
        for name in sorted({*found, *asked}):
            if (at := difference(found.get(name), asked.get(name), f"{where}.{name}".lstrip("."))) is not None:
                return at
        return None
    if isinstance(found, list) and isinstance(asked, list) and len(found) == len(asked):
        for i, (one, other) in enumerate(zip(found, asked, strict=True)):
            if (at := difference(one, other, f"{where}[{i}]")) is not None:
                return at
        return None
    return None if found == asked else (where or "identity", found, asked)


def short(value: Any) -> str:
    """Return a JSON value as text of at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
