"""What a run's rows in the store say and how they change: every write of a run is here, each one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from koinon.core.events import Checkpoint, RoundRecord
from koinon.core.types import Purpose
from koinon.errors import StoreError
from koinon.fleet.coordinator import tables as t
from koinon.fleet.coordinator.members import Fared, Member
from koinon.fleet.coordinator.store import FleetStore, put
from koinon.fleet.wire.claim import Claim
from koinon.store.blobs import Blobs
from koinon.store.mirror import Mirror
from koinon.store.run_directory import Saved

_AT_STAGE = [t.stages.c[name] == sa.bindparam(name) for name in ("run", "round", "purpose")]
_STAGE = sa.select(t.stages).where(*_AT_STAGE)
_ROUND = sa.insert(t.rounds)
_FARED = (
    sa.update(t.members)
    .where(t.members.c.run == sa.bindparam("in_run"), t.members.c.client == sa.bindparam("who"))
    .values(
        last_round=sa.bindparam("last_round"),
        last_accepted=sa.bindparam("last_accepted"),
        rounds_done=t.members.c.rounds_done + sa.bindparam("done"),
    )
)
_FORGET = [
    sa.delete(table).where(table.c.run == sa.bindparam("run"), table.c.round <= sa.bindparam("last"))
    for table in (t.stages, t.uploads, t.messages)
]
"""What is asked in every round, put together once: that takes longer than the asking."""


@dataclass(frozen=True)
class Committed:
    """A client's signed word on its upload, and which leaves of it cannot be added."""

    root: str
    size: int
    weight: int
    signature: str  # base64url
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageRow:
    """What was written of a stage: whom it asked, and once settled whose updates made it."""

    model: str
    asked: tuple[str, ...]
    target: int
    settled: tuple[str, ...] | None
    lost: Mapping[str, str]
    void: str | None = None  # why a settled stage has no result
    drawn: tuple[str, ...] = ()  # where updates are hidden: what they are hidden under was agreed on for so many
    refusals: Mapping[str, str] = field(default_factory=dict)  # why clients do not help to open a settled stage's sum


@dataclass(frozen=True)
class RoundRow:
    """What a committed round adds to its checkpoint."""

    checkpoint: Checkpoint
    blob: str  # of the server's state
    best: str | None
    receipt: str | None
    outcomes: Mapping[str, bool]  # everyone who sent an update -> whether it is in the sum


class Ledger:
    """One run's rows and blobs. ``copies`` is the URL of a folder where blobs are kept a second time."""

    def __init__(self, store: FleetStore, run: str, copies: str | None = None) -> None:
        self._store, self._run = store, run
        self.folder = store.folder / "runs" / run
        self.blobs = Blobs(self.folder / "blobs", synced=False)
        self.mirror = (
            None if copies is None else Mirror(self.blobs, f"{copies}{'' if copies.endswith('/') else '/'}{run}")
        )

    def members(self) -> list[tuple[Member, Fared]]:
        """Return the members in order, each with how it has fared."""
        joined = sa.join(t.members, t.clients, t.members.c.client == t.clients.c.client)
        query = sa.select(t.members, t.clients.c.name).select_from(joined)
        with self._store.transaction() as rows:
            found = rows.execute(query.where(t.members.c.run == self._run).order_by(t.members.c.position)).all()
        return [
            (
                Member(row.client, row.name.partition(t.REVOKED)[0], row.train, row.held_out),
                Fared(row.last_round, row.last_accepted, row.rounds_done),
            )
            for row in found
        ]

    def revoked(self) -> frozenset[str]:
        """Return the members that may no longer take part."""
        joined = sa.join(t.members, t.clients, t.members.c.client == t.clients.c.client)
        query = sa.select(t.members.c.client).select_from(joined).where(t.clients.c.revoked)
        with self._store.transaction() as rows:
            return frozenset(rows.execute(query.where(t.members.c.run == self._run)).scalars())

    def join(self, member: Member, position: int) -> None:
        """Write a member, or what it says of its data now: how it has fared is written with the rounds."""
        at = {"run": self._run, "client": member.client}
        said = {"train": member.train, "held_out": member.held_out}
        known = [t.members.c[name] == value for name, value in at.items()]
        with self._store.transaction() as rows:
            if not rows.execute(sa.update(t.members).where(*known).values(**said)).rowcount:
                fresh = {"position": position, "last_round": 0, "last_accepted": False, "rounds_done": 0}
                rows.execute(sa.insert(t.members).values(**at, **said, **fresh))

    def stage(self, round: int, purpose: Purpose) -> StageRow | None:
        """Return what an earlier process wrote of a stage."""
        with self._store.transaction(durable=False) as rows:
            at = {"run": self._run, "round": round, "purpose": purpose.value}
            row = rows.execute(_STAGE, at).first()
        if row is None:
            return None
        known, settled = json.loads(row.asked), json.loads(row.settled or "{}")
        asked, drawn = (known["asked"], known["drawn"]) if isinstance(known, dict) else (known, ())
        made, lost = tuple(settled["clients"]) if settled else None, settled.get("lost", {})
        over = (made, lost, settled.get("void"), tuple(drawn), settled.get("refusals", {}))
        return StageRow(row.model, tuple(asked), row.target, *over)

    def write_stage(self, round: int, purpose: Purpose, row: StageRow) -> None:
        """Write whom a stage asks, and once settled whose updates made it."""
        over = {"clients": row.settled, "lost": dict(row.lost), "void": row.void, "refusals": dict(row.refusals)}
        settled = None if row.settled is None else json.dumps(over)
        values = {
            "run": self._run,
            "round": round,
            "purpose": purpose.value,
            "model": row.model,
            "asked": json.dumps({"asked": row.asked, "drawn": row.drawn} if row.drawn else row.asked),
            "target": row.target,
            "settled": settled,
        }
        with self._store.transaction(durable=False) as rows:
            put(rows, t.stages, values)

    def forget_stage(self, round: int, purpose: Purpose) -> None:
        """Forget a stage that is to begin anew, and its uploads."""
        with self._store.transaction() as rows:
            for table in (t.stages, t.uploads):
                rows.execute(sa.delete(table).where(self._at(table, round, purpose)))

    def uploads(self, round: int, purpose: Purpose) -> dict[str, tuple[Claim, Committed | None]]:
        """Return every upload of a stage and its commit."""
        with self._store.transaction(durable=False) as rows:
            found = rows.execute(sa.select(t.uploads).where(self._at(t.uploads, round, purpose))).all()
        return {
            row.client: (
                Claim(row.bytes, row.chunk_bytes, tuple(json.loads(row.digests))),
                None if row.commit is None else _committed(json.loads(row.commit)),
            )
            for row in found
        }

    def write_upload(
        self, round: int, purpose: Purpose, client: str, claim: Claim, commit: Committed | None = None
    ) -> None:
        """Write what a client claims to upload, and later its commit."""
        values = {
            "run": self._run,
            "round": round,
            "purpose": purpose.value,
            "client": client,
            "bytes": claim.size,
            "chunk_bytes": claim.chunk_bytes,
            "digests": json.dumps(claim.digests),
            "commit": None if commit is None else json.dumps(vars(commit)),
        }
        with self._store.transaction(durable=False) as rows:
            put(rows, t.uploads, values)

    def commit(self, row: RoundRow) -> None:
        """Write a round down, all of it or nothing, and forget what its stages held."""
        at, number = row.checkpoint, row.checkpoint.round
        values = {
            "run": self._run,
            "number": number,
            "record": None if at.record is None else json.dumps(at.record.to_json()),
            "server": row.blob,
            "best": row.best,
            "watch": json.dumps(at.watch),
            "judged": json.dumps(at.judged),
            "receipt": row.receipt,
        }
        with self._store.transaction() as rows:
            rows.execute(_ROUND, values)
            if row.outcomes:
                at_last = {"in_run": self._run, "last_round": number}
                fared = [
                    {**at_last, "who": who, "last_accepted": how, "done": int(how)} for who, how in row.outcomes.items()
                ]
                rows.execute(_FARED, fared)
            for forget in _FORGET:
                rows.execute(forget, {"run": self._run, "last": number})
        self._copy()

    def load(self) -> tuple[Saved, str, str | None] | None:
        """Return the last round whose model is whole, its history and blobs; None before the first.

        A power cut may take the newest blob, which is not forced to disk: then the round before it is the last.
        """
        with self._store.transaction() as rows:
            query = sa.select(t.rounds).where(t.rounds.c.run == self._run).order_by(t.rounds.c.number)
            found = list(rows.execute(query).all())
        while len(found) > 1 and not self._here(found[-1].server):
            found.pop()
        if not found:
            return None
        with self._store.transaction() as rows:
            later = (t.rounds.c.run == self._run) & (t.rounds.c.number > found[-1].number)
            rows.execute(sa.delete(t.rounds).where(later))
        history = tuple(RoundRecord.from_json(json.loads(row.record)) for row in found if row.record is not None)
        last = found[-1]
        self._here(last.server)  # the only one is not given up: what cannot be read is an error
        best = self.blobs.read(last.best) if last.best and self._here(last.best) else {}
        record = history[-1] if history else None
        server, watch, judged = self.blobs.read(last.server), json.loads(last.watch), json.loads(last.judged)
        self._copy()
        return Saved(Checkpoint(last.number, server, watch, best, record, judged), history), last.server, last.best

    def receipts(self, since: int) -> list[Any]:
        """Return the receipts of rounds after ``since``, as JSON."""
        query = sa.select(t.rounds.c.receipt).where((t.rounds.c.run == self._run) & (t.rounds.c.number > since))
        with self._store.transaction() as rows:
            found = rows.execute(query.where(t.rounds.c.receipt.is_not(None)).order_by(t.rounds.c.number)).scalars()
            return [json.loads(text) for text in found]

    def ended(self) -> dict[str, Any] | None:
        """Return why the run is over and its digest, or None."""
        with self._store.transaction() as rows:
            found = rows.execute(sa.select(t.runs.c.ended).where(t.runs.c.run == self._run)).scalar()
        ended = None if found is None else dict(json.loads(found))
        if ended is not None and ended["model"] is not None:
            self._here(ended["model"])
        return ended

    def paused(self) -> bool:
        """Return whether the operator let the run rest."""
        with self._store.transaction() as rows:
            return bool(rows.execute(sa.select(t.runs.c.paused).where(t.runs.c.run == self._run)).scalar())

    def change(self, **values: Any) -> None:
        """Change the run's own row."""
        with self._store.transaction() as rows:
            rows.execute(sa.update(t.runs).where(t.runs.c.run == self._run).values(**values))
        self._copy()

    def _here(self, blob: str) -> bool:
        """Return whether a blob is here, whole, if need be from its copy."""
        return self.blobs.whole(blob) or (self.mirror is not None and self.mirror.fetch(blob))

    def _copy(self) -> None:
        """Have copied what a start needs: the last two states, the best model, and the final one."""
        if self.mirror is None:
            return
        last = sa.select(t.rounds.c.server, t.rounds.c.best).where(t.rounds.c.run == self._run)
        ended = sa.select(t.runs.c.ended).where(t.runs.c.run == self._run)
        with suppress(StoreError), self._store.transaction(durable=False) as rows:  # what was written is written
            states = rows.execute(last.order_by(t.rounds.c.number.desc()).limit(2)).all()
            over = json.loads(rows.execute(ended).scalar() or "{}")
            names = [*(row.server for row in states), *(row.best for row in states[:1]), over.get("model")]
            self.mirror.want(name for name in names if name)

    def _at(self, table: sa.Table, round: int, purpose: Purpose) -> Any:
        return (table.c.run == self._run) & (table.c.round == round) & (table.c.purpose == purpose.value)


def _committed(row: Mapping[str, Any]) -> Committed:
    return Committed(row["root"], row["size"], row["weight"], row["signature"], tuple(row["refused"]))
