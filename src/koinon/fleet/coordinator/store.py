"""Where a coordinator keeps everything: rows in SQLite (or PostgreSQL by URL), blobs and uploads as files.

A transaction is all or nothing and is on disk before its call returns. One coordinator has a store at a time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from koinon.errors import StoreError
from koinon.fleet.coordinator import tables
from koinon.fleet.wire.signatures import forget_partial
from koinon.store.lock import lock

DATABASE = "fleet.sqlite"
_LOCK = 0x6B6F696E6F6E  # "koinon", as PostgreSQL's advisory locks are numbered
_LOCK_SECONDS = 3.0  # a coordinator that was just killed may still be known to the server
_SYNCHRONOUS = "synchronous"  # what was last asked of a connection
_LIBPQ = ("psycopg", "psycopg2")
_PATIENCE = {  # seconds, but the last: milliseconds. A server that is gone without a word is an error, not a wait
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class FleetStore:
    """A folder and a database. Use :meth:`open`."""

    def __init__(self, folder: Path, engine: Engine, release: ExitStack) -> None:
        self.folder = folder
        self._engine = engine
        self._release = release

    @classmethod
    def open(cls, folder: Path, database: str | None = None) -> FleetStore:
        """Lock and open the store of a coordinator, made where there is none.

        ``database`` is an SQLAlchemy URL; None is SQLite in the folder. Raises StoreError if another process has it.
        """
        with ExitStack() as undo:
            undo.callback(os.close, lock(folder))
            forget_partial(folder)
            engine = _sqlite(folder) if database is None else _postgresql(database, alone=True)
            undo.callback(engine.dispose)
            with speaking(folder, engine):
                tables.METADATA.create_all(engine)
            store = cls(folder, engine, undo.pop_all())
        store._check_format()
        return store

    @classmethod
    def read_only(cls, folder: Path, database: str | None = None) -> FleetStore:
        """Open the store of a folder to look at it, also while a coordinator writes it."""
        if database is not None:
            engine = _postgresql(database, alone=False)
        elif (folder / DATABASE).is_file():
            engine = sa.create_engine(f"sqlite:///file:{folder / DATABASE}?mode=ro&uri=true")
        else:
            raise StoreError(
                f"{folder} holds no coordinator's store: there is no {DATABASE} in it. If koinon serve is given --database, give "
                "the same here."
            )
        release = ExitStack()
        release.callback(engine.dispose)
        return cls(folder, engine, release)

    @property
    def is_near(self) -> bool:
        """Whether nothing is waited for but this machine's own disk."""
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Connection]:
        """Give a connection whose changes are kept all together, or not at all if the block raises.

        Without ``durable`` they outlive every process, but a power cut may take them.
        """
        with speaking(self.folder, self._engine), self._engine.begin() as connection:
            if self.is_near:
                wanted = "FULL" if durable else "NORMAL"
                if connection.info.get(_SYNCHRONOUS) != wanted:
                    connection.exec_driver_sql(f"PRAGMA synchronous = {wanted}")
                    connection.info[_SYNCHRONOUS] = wanted
            elif not durable:
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO OFF")
            yield connection

    def value(self, name: str) -> Any:
        """Return what :meth:`keep` kept under a name, or None."""
        with self.transaction() as rows:
            found = rows.execute(sa.select(tables.about.c.value).where(tables.about.c.name == name)).scalar()
        return None if found is None else json.loads(found)

    def keep(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name."""
        with self.transaction() as rows:
            rows.execute(sa.delete(tables.about).where(tables.about.c.name == name))
            rows.execute(sa.insert(tables.about).values(name=name, value=json.dumps(value)))

    def close(self) -> None:
        """Give the store free. Safe to call twice."""
        self._release.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _check_format(self) -> None:
        found = self.value("format")
        if found is None:
            self.keep("format", tables.FORMAT)
        elif found != tables.FORMAT:
            raise StoreError(
                f"{self.folder} was written in format {found}, and this koinon reads format {tables.FORMAT}. "
                "Use the koinon it was made with, or another folder."
            )


def put(rows: Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or overwrite the one with the same primary key."""
    rows.execute(_upsert(table, rows.dialect.name), values)


@cache
def _upsert(table: sa.Table, dialect: str) -> sa.Insert:
    insert: Any = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    keys = list(table.primary_key.columns)
    rest = {column.name: insert.excluded[column.name] for column in table.columns if not column.primary_key}
    upsert: sa.Insert = insert.on_conflict_do_update(index_elements=keys, set_=rest)
    return upsert


@contextmanager
def speaking(folder: Path, engine: Engine) -> Iterator[None]:
    """Turn what a database says into what a person can do."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        do = (
            "Start the database, or mend the way to it"
            if engine.dialect.name == "postgresql"
            else "If the disk is full, make room"
        )
        raise StoreError(
            f"The database of {folder} cannot be used: {cause}. {do}; a coordinator that runs then goes on by itself, "
            "and one that has ended is started again with the same line: everything that was committed is still there."
        ) from error


def _sqlite(folder: Path) -> Engine:
    engine = sa.create_engine(f"sqlite:///{folder / DATABASE}", connect_args={"timeout": 30})
    sa.event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _postgresql(database: str, *, alone: bool) -> Engine:
    """Return an engine. One that is ``alone`` has a single connection, which holds the coordinator's lock.

    So there is no transaction without the lock: who has lost its connection must get the lock again, and cannot while
    another coordinator has it.
    """
    form = "Give one like postgresql+psycopg://user:password@host/name (pip install 'koinon[postgresql]')."
    try:
        url = sa.make_url(database)
        if url.get_backend_name() != "postgresql":
            raise StoreError(
                f"The database URL is one of {url.get_backend_name()}, and must be one of PostgreSQL. {form}"
            )
        patience = _PATIENCE if url.get_driver_name() in _LIBPQ else {}
        own = {name: value for name, value in patience.items() if name not in url.query}
        pool = {"pool_size": 1, "max_overflow": 0} if alone else {}
        engine = sa.create_engine(url, pool_pre_ping=True, connect_args=own, **pool)
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        raise StoreError(f"The database URL cannot be used: {error}. {form}") from error
    if alone:
        sa.event.listen(engine, "connect", _advisory_lock)
    return engine


def _advisory_lock(connection: Any, record: Any) -> None:
    """Hold PostgreSQL's lock for as long as the connection lives: its server frees it when the connection dies."""
    cursor = connection.cursor()
    for name, seconds in (("idle", 30), ("interval", 10), ("count", 3)):  # so that it notices when we are gone
        cursor.execute(f"SET tcp_keepalives_{name} = {seconds}")
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        cursor.execute(f"SELECT pg_try_advisory_lock({_LOCK})")
        held = cursor.fetchone()[0]
        connection.commit()
        if held:
            cursor.close()
            return
        if time.monotonic() > until:
            connection.close()
            raise StoreError("Another coordinator uses this database. Stop it, or use another database.")
        time.sleep(0.1)
