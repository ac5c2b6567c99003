"""Do a coordinator's rows, its folder and its key belong together? With others every run would begin anew without a word."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from koinon.errors import StoreError
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.store import DATABASE, FleetStore


def refuse_what_is_apart(store: FleetStore, key: Path) -> None:
    """Raise StoreError for runs in the folder that the rows do not know, and for runs whose receipts no key here has signed."""
    with store.transaction() as rows:
        known = set(rows.execute(sa.select(tables.runs.c.run)).scalars())
    kept = store.folder / "runs"
    strange = sorted(path.name for path in kept.iterdir() if path.name not in known) if kept.is_dir() else []
    if strange:
        raise StoreError(
            f"{kept / strange[0]} is of a run that the rows do not know. Give the --database that this folder was served with (none, "
            f"if that was none), restore {DATABASE} from a copy, or choose another --dir."
        )
    if known and not key.exists():
        raise StoreError(
            f"{key} is missing: it signs the receipts of every run, and another would break their chains. Restore it from a copy, "
            "or name the --dir that belongs to these rows."
        )
