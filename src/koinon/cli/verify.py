"""``koinon verify``: do a run's signed receipts hold, and is what this folder has what they say? Offline."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from koinon import tree
from koinon.cli.exit_status import Exit
from koinon.cli.output import print_json, say
from koinon.core.types import Purpose
from koinon.errors import FormatError, StoreError
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.participant.keep import COMMITS, Enrolled
from koinon.fleet.wire.receipts import Commit, Entry, Opening, Receipt, Sealed, canonical, check_chain
from koinon.fleet.wire.signatures import Kind, OwnKey, PublicKey, decoded, digest
from koinon.store.blobs import unpack

_ASKED = (Purpose.TRAIN, Purpose.EVALUATE)
_BLOB = ".safetensors"


class Standing(Enum):
    """How a point ended."""

    HOLDS = "holds"
    BROKEN = "DOES NOT HOLD"
    UNKNOWN = "not checked"  # what it would take is not here


@dataclass(frozen=True)
class Point:
    """One thing that was looked at."""

    standing: Standing
    what: str


@dataclass(frozen=True)
class End:
    """How a run ended: ``model`` is the blob of the result, ``digest`` that of its parameters."""

    model: str
    digest: str


@dataclass(frozen=True)
class Sent:
    """One commit as its client wrote it down before it sent it."""

    round: int
    purpose: Purpose
    model: str
    commit: Commit


@dataclass(frozen=True)
class Own:
    """What a participant knows of itself: every commit it made."""

    client: str
    sent: tuple[Sent, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a folder has of one run. ``rounds`` is how many it knows to be finished, apart from the receipts."""

    name: str
    opening: Opening
    texts: tuple[str, ...]  # receipts
    rounds: int = 0
    keys: Mapping[str, PublicKey] = field(default_factory=dict)  # of clients
    models: Mapping[str, Path] = field(default_factory=dict)  # digest -> the file that should have it
    end: End | None = None
    own: Own | None = None


def verify(folder: Path, database: str | None, *, as_json: bool) -> None:
    """Print what holds of every run in a folder; ends the process with Exit.FAILED if anything does not."""
    looked = [(evidence, look(evidence)) for evidence in gather(folder, database)]
    broken = sum(point.standing is Standing.BROKEN for _, points in looked for point in points)
    if as_json:
        print_json({"holds": not broken, "runs": [_described(*run) for run in looked]})
    else:
        for evidence, points in looked:
            say(f"{evidence.name} ({evidence.opening.run}), app {evidence.opening.app[:16]}...")
            for point in points:
                say(f"  {point.standing.value:<13}  {point.what}")
        wrong = "1 point does not hold." if broken == 1 else f"{broken} points do not hold."
        say(wrong if broken else "Everything that could be checked holds.")
    if broken:
        sys.exit(Exit.FAILED)


def _described(evidence: Evidence, points: tuple[Point, ...]) -> dict[str, Any]:
    return {
        "run": evidence.opening.run,
        "name": evidence.name,
        "app": evidence.opening.app,
        "receipts": len(evidence.texts),
        "points": [{"standing": point.standing.name.lower(), "what": point.what} for point in points],
    }


def gather(folder: Path, database: str | None = None) -> list[Evidence]:
    """Return what a coordinator's or a participant's folder has of its runs. Raises StoreError if it is neither."""
    found = None
    if (folder / "coordinator.key").is_file():
        found = _coordinators(folder, database)
    elif (folder / "coordinator.json").is_file():
        found = _participants(folder)
    if found:
        return found
    if found is not None:
        raise StoreError(
            f"{folder} knows of no run, so there is nothing to check. If it is a coordinator's that is given --database, give the "
            "same here."
        )
    raise StoreError(
        f"{folder} is neither a coordinator's folder nor a participant's. Name what was given to koinon serve or koinon "
        "join as --dir."
    )


def _coordinators(folder: Path, database: str | None) -> list[Evidence]:
    key = OwnKey.at(folder / "coordinator.key").public
    store = FleetStore.read_only(folder, database)
    try:
        with store.transaction() as rows:
            clients = rows.execute(sa.select(tables.clients)).all()
            runs = rows.execute(sa.select(tables.runs).order_by(tables.runs.c.name)).all()
            finished = sa.select(tables.rounds).where(tables.rounds.c.number > 0).order_by(tables.rounds.c.number)
            rounds = {run.run: rows.execute(finished.where(tables.rounds.c.run == run.run)).all() for run in runs}
    finally:
        store.close()
    keys = {row.client: PublicKey(Kind(row.kind), decoded(row.key)) for row in clients}
    return [
        Evidence(
            name=run.name,
            opening=Opening(run.run, digest(run.identity.encode()), key),
            texts=tuple(row.receipt for row in rounds[run.run] if row.receipt is not None),
            rounds=len(rounds[run.run]),
            keys=keys,
            models={path.stem: path for path in (folder / "runs" / run.run / "blobs").glob(f"*{_BLOB}")},
            end=_end_of([] if run.ended is None else [json.loads(run.ended)]),
        )
        for run in runs
    ]


def _participants(folder: Path) -> list[Evidence]:
    key = folder / "identity.key"
    with _reading(folder / "coordinator.json"):
        enrolled = Enrolled(**json.loads((folder / "coordinator.json").read_text()))
        coordinator = PublicKey(Kind.ED25519, decoded(enrolled.coordinator))
    keys = {enrolled.client: OwnKey.at(key).public} if key.is_file() else {}
    found = []
    known = {path.name for kind in ("runs", COMMITS, "receipts") for path in (folder / kind).glob("*.jsonl")}
    for path in (folder / "runs" / name for name in sorted(known)):
        with _reading(path):
            told = [dict(json.loads(line)) for line in _lines(path, must=True)]
            app = next(line for line in told if "app" in line)
            end = _end_of(told)
        result = folder / f"{app['name']}{_BLOB}"
        sent = folder / COMMITS / path.name
        with _reading(sent):
            own = Own(enrolled.client, tuple(_sent_of(json.loads(line)) for line in _lines(sent)))
        found.append(
            Evidence(
                name=app["name"],
                opening=Opening(path.stem, app["app"], coordinator),
                texts=tuple(map(_rewritten, _written(folder / "receipts" / path.name))),
                rounds=_finished(own.sent, ended=any("state" in line for line in told)),
                keys=keys,
                models={end.model: result} if end is not None and result.is_file() else {},
                end=end,
                own=own,
            )
        )
    return found


def _finished(sent: tuple[Sent, ...], *, ended: bool) -> int:
    """Return how many rounds a participant must have receipts of.

    A round begins when the last is finished. The receipts of those before are fetched when its update is sent: before
    there is work for the next round, or the run ends.
    """
    rounds = sorted({one.round for one in sent})
    known = rounds if ended else rounds[:-1]
    return known[-1] - 1 if known else 0


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file cannot be read."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, StopIteration, RecursionError, FormatError) as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {error!s:.80}): it was changed, or a crash cut it short. Restore "
            "it from a copy."
        ) from error


def _lines(path: Path, *, must: bool = False) -> list[str]:
    """Return a file's lines; none if there is no file, unless there ``must`` be one."""
    return [line for line in path.read_text(errors="replace").split("\n") if line] if must or path.is_file() else []


def _written(path: Path) -> list[str]:
    """Return a file's lines without a last one that a crash cut short: a participant writes that receipt again."""
    lines = _lines(path)
    return lines[:-1] if lines and not path.read_bytes().endswith(b"\n") else lines


def _rewritten(line: str) -> str:
    """Return a receipt's one text, if the line means one: a participant keeps it with spaces."""
    try:
        return canonical(json.loads(line))
    except (ValueError, RecursionError):
        return line


def _sent_of(line: Mapping[str, Any]) -> Sent:
    commit = Commit(
        root=line["root"], length_bytes=line["bytes"], weight=line["weight"], signature=decoded(line["signature"])
    )
    return Sent(int(line["round"]), Purpose(line["purpose"]), line["model"], commit)


def _end_of(told: list[dict[str, Any]]) -> End | None:
    """Return the result, if a run has come to one."""
    results = [End(line["model"], line["digest"]) for line in told if line.get("model") and line.get("digest")]
    return results[-1] if results else None


def look(evidence: Evidence) -> tuple[Point, ...]:
    """Return everything that could be checked of a run, what holds and what does not, and what could not be."""
    receipts, unreadable = _read(evidence.texts)
    if unreadable:
        return (*unreadable, Point(Standing.UNKNOWN, "the chain: not all of it can be read"))
    points = [*_chain(evidence, receipts), *_length(evidence, receipts)]
    if evidence.own is not None:
        points += _sent(evidence.own, receipts)
    if receipts:
        points += _models(evidence.models, receipts)
        points += _end(evidence, receipts[-1].receipt)
    return tuple(points)


def _read(texts: tuple[str, ...]) -> tuple[list[Sealed], list[Point]]:
    sealed, points = [], []
    for place, text in enumerate(texts, start=1):
        try:
            sealed.append(Sealed.of_text(text))
        except FormatError as error:
            points.append(Point(Standing.BROKEN, f"receipt {place} cannot be read: {error}"))
    return sealed, points


def _chain(evidence: Evidence, receipts: list[Sealed]) -> Iterator[Point]:
    findings = check_chain(evidence.opening, receipts, evidence.keys)
    for finding in findings:
        yield Point(Standing.BROKEN, f"the receipt of round {finding.round}: {finding.what}")
    if receipts:
        last = receipts[-1].receipt.digest()
        yield Point(Standing.UNKNOWN, f"that everybody was told the same: compare your last receipts, here {last}")
    if receipts and not findings:
        yield from _void(receipts)
        signed = sum(e.commit is not None for s in receipts for purpose in _ASKED for e in s.receipt.asked(purpose))
        yield Point(
            Standing.HOLDS, f"receipts: rounds 1 to {len(receipts)}, without a gap, each signed by the coordinator"
        )
        yield Point(Standing.HOLDS, f"commits: all {signed:,} in the receipts are signed by their clients")


def _void(receipts: list[Sealed]) -> Iterator[Point]:
    """Tell of the rounds without a result: whether they have none is checked with the chain."""
    for purpose in _ASKED:
        found = {s.receipt.round: s.receipt.void[purpose.value] for s in receipts if purpose.value in s.receipt.void}
        if found:
            rounds, (last, why) = ", ".join(map(str, found)), list(found.items())[-1]
            stayed = "counts nobody, and the model stayed" if purpose is Purpose.TRAIN else "counts nobody"
            yield Point(Standing.HOLDS, f"{purpose.value} of round {rounds}: void, {stayed}; in round {last}: {why}")


def _length(evidence: Evidence, receipts: list[Sealed]) -> Iterator[Point]:
    if evidence.rounds > len(receipts):
        yield Point(Standing.BROKEN, f"receipts: {len(receipts)} are here, and {evidence.rounds} rounds are finished")
    elif not receipts:
        yield Point(Standing.UNKNOWN, "receipts: there are none yet")


def _sent(own: Own, receipts: list[Sealed]) -> Iterator[Point]:
    """Compare what a participant committed with what the receipts say of it, both ways."""
    made: dict[tuple[int, Purpose], list[tuple[str, Commit]]] = {}
    for sent in own.sent:  # twice in a round that the coordinator lost to a power cut
        made.setdefault((sent.round, sent.purpose), []).append((sent.model, sent.commit))
    counted = listed = later = 0
    by_round = {sealed.receipt.round: sealed.receipt for sealed in receipts}
    for (number, purpose), commits in made.items():
        if number not in by_round:  # not yet, or the chain above says that it is missing
            later += 1
            continue
        receipt = by_round[number]
        entry = _entry(receipt, purpose, own.client)
        if entry is None:
            yield _of_round(number, purpose, "this client committed, and the receipt does not list it")
        elif entry.commit is not None and (receipt.model(purpose), entry.commit) not in commits:
            yield _of_round(number, purpose, "the receipt lists another commit of this client than it made")
        elif entry.accepted:
            counted += 1
        else:
            listed += 1
    for sealed in receipts:
        for purpose in _ASKED:
            entry = _entry(sealed.receipt, purpose, own.client)
            if entry is not None and entry.commit is not None and (sealed.receipt.round, purpose) not in made:
                what = "the receipt lists a commit of this client, which this folder never made"
                yield _of_round(sealed.receipt.round, purpose, what)
    yield Point(Standing.HOLDS, f"own commits: {counted} count, and {listed} are listed with why they do not")
    if later:
        yield Point(Standing.UNKNOWN, f"own commits: {later} are of rounds that have no receipt here")


def _of_round(number: int, purpose: Purpose, what: str) -> Point:
    return Point(Standing.BROKEN, f"round {number}, {purpose.value}: {what}")


def _entry(receipt: Receipt, purpose: Purpose, client: str) -> Entry | None:
    return next((entry for entry in receipt.asked(purpose) if entry.client == client), None)


def _models(models: Mapping[str, Path], receipts: list[Sealed]) -> Iterator[Point]:
    """Compare the models that are still here with their digests."""
    named = {blob for sealed in receipts for blob in _blobs(sealed.receipt)}
    here = sorted(named & models.keys())
    changed = [blob for blob in here if not _whole(models[blob], blob)]
    for blob in changed:
        yield Point(Standing.BROKEN, f"model {blob}: {models[blob]} was changed")
    if len(here) > len(changed):
        yield Point(Standing.HOLDS, f"models: {len(here) - len(changed)} of {len(named)} are here, unchanged")
    if len(named) > len(here):
        yield Point(Standing.UNKNOWN, f"models: {len(named) - len(here)} of {len(named)} are not here")


def _end(evidence: Evidence, last: Receipt) -> Iterator[Point]:
    """Compare the result with what the last receipt says it is."""
    end = evidence.end
    if end is None:
        yield Point(Standing.UNKNOWN, "result: there is none (yet)")
        return
    path = evidence.models.get(end.model)
    if end.model != last.variables:
        yield Point(Standing.BROKEN, f"result: it is not the model of round {last.round}, the last with a receipt")
    elif path is None:
        yield Point(Standing.UNKNOWN, f"result: the model is not here to compute its digest from, {end.digest}")
    elif not _whole(path, end.model) or tree.digest(unpack(path.read_bytes())["params"]) != end.digest:
        yield Point(Standing.BROKEN, f"result: {path} does not have the digest {end.digest}")
    else:
        yield Point(Standing.HOLDS, f"result: the model of round {last.round}, digest {end.digest}")


def _blobs(receipt: Receipt) -> tuple[str, str, str]:
    return receipt.model_before, receipt.model_after, receipt.variables


def _whole(path: Path, name: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == name
