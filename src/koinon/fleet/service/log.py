"""What a coordinator logs: one record an event, as a short line for people or as one JSON object for programs.

No event tells a token, a key or a number of any model. Nothing is installed before :func:`install`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from koinon.core.algorithm import Synchronous
from koinon.core.types import Purpose
from koinon.fleet.coordinator.access import Access, Client
from koinon.fleet.coordinator.ledger import Ledger, StageRow
from koinon.fleet.coordinator.members import Member
from koinon.fleet.coordinator.run import FleetRun
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey
from koinon.report.finite import finite
from koinon.report.terminal import printable

_LOG = logging.getLogger("koinon.fleet.events")
_LONGEST = 500  # characters of what a party wrote
_HEARD = ("koinon", "uvicorn", "asyncio")  # the loggers that a coordinator's process shows
_SAID = ("started", "stopped")  # people are told in other words
_SHOWN = ("finished", "void", "unjudged", "ended")  # they see a live line of a run that is alone


@dataclass(frozen=True)
class Event:
    """Something that happened: a word and facts for programs, a line for people."""

    word: str
    line: str
    facts: Mapping[str, Any]

    def __str__(self) -> str:
        return self.line


def tell(word: str, line: str, *, level: int = logging.INFO, **facts: Any) -> None:
    """Log an event. A fact may be anything that JSON has a word for."""
    _LOG.log(level, Event(word, line, facts))


def install(*, as_json: bool, alone: bool = True) -> None:
    """Show a coordinator's log on standard error; for a process that is koinon's own. Again: in place of the old.

    ``alone`` is whether it has one run, whose rounds people see elsewhere.
    """
    handler = _Stderr()
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    if not as_json:
        silent = (*_SAID, *_SHOWN) if alone else _SAID
        handler.addFilter(lambda record: not (isinstance(record.msg, Event) and record.msg.word in silent))
    for name in _HEARD:
        logging.getLogger(name).handlers = [handler]
        logging.getLogger(name).propagate = False
    logging.getLogger("koinon.fleet").setLevel(logging.DEBUG if as_json else logging.INFO)


class JsonFormatter(logging.Formatter):
    """One JSON object a record: ``time`` (UTC), ``level``, ``event``, and the event's facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, in one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {"time": at.replace("+00:00", "Z"), "level": record.levelname.lower()}
        if isinstance(event := record.msg, Event):
            told |= {"event": event.word, **event.facts}
        else:
            word = "trouble" if record.levelno >= logging.WARNING else "message"
            told |= {"event": word, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(finite(told), allow_nan=False)


class PlainFormatter(logging.Formatter):
    """The local time and a short line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what a party wrote cannot move the cursor or end it."""
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {printable(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class LoggedAccess(Access):
    """Access that logs who comes and who is shut out."""

    def enrol(self, token: str, name: str, key: PublicKey, signature: bytes) -> Client:
        """Take a party in by its invitation."""
        known = {client.client for client in self.clients()}
        client = super().enrol(token, name, key, signature)
        if client.client not in known:
            line = f"{client.name} has enrolled ({client.client})"
            tell("enrolled", line, client=client.client, name=client.name, kind=client.key.kind.value)
        return client

    def revoke(self, client: str) -> None:
        """Shut a client out."""
        super().revoke(client)
        name = self.client(client).name
        tell("revoked", f"{name} is shut out ({client})", client=client, name=name)


class LoggedLedger(Ledger):
    """A ledger that logs the stages it writes."""

    _began: tuple[int, Purpose, float] | None = None

    def write_stage(self, round: int, purpose: Purpose, row: StageRow) -> None:
        """Write whom a stage asks, or whose updates made it."""
        super().write_stage(round, purpose, row)
        if row.refusals and row.void is None:
            return  # it was told when it settled; that somebody does not open its sum is told as a failure
        at = {"run": self.folder.name, "round": round, "purpose": purpose.value, "asked": len(row.asked)}
        where, now = f"round {round} ({purpose.value})", time.monotonic()
        if row.settled is None:
            if self._began is None or self._began[:2] != (round, purpose):
                self._began = round, purpose, now
            tell("asked", f"{where} asks {len(row.asked)} clients", level=logging.DEBUG, **at, wanted=row.target)
            return
        began, counted = self._began, len(row.settled)
        seconds = now - began[2] if began is not None and began[:2] == (round, purpose) else None
        if row.void is not None:
            tell("void", f"{where} has no result: {row.void}", level=logging.WARNING, **at, reason=row.void)
        line = f"{where} has {counted} of {len(row.asked)} answers"
        tell("settled", line, level=logging.DEBUG, **at, counted=counted, lost=dict(row.lost), seconds=seconds)


class LoggedRun(FleetRun):
    """A run that logs what its clients and its operator do."""

    def __init__(
        self, name: str, key: str, terms: Synchronous, ledger: Ledger, spool: Spool, clock: Callable[[], float]
    ) -> None:
        super().__init__(key, terms, ledger, spool, clock)
        self.name = name
        self._said: tuple[int, set[tuple[Purpose, str, str]]] = 0, set()  # of a round: stage, client, what of it

    def join(self, member: Member) -> None:
        """Take a client in, or back."""
        super().join(member)
        counts = {"train_examples": member.train, "held_out_examples": member.held_out}
        known = f" with {member.train:,} examples" if member.train > 1 else ""  # under masks everybody says 1
        line = f"{member.name} has joined {self.name}{known}"
        tell("joined", line, run=self.key, client=member.client, name=member.name, **counts)

    def commit(self, key: PublicKey, client: str, round: int, purpose: Purpose, word: Mapping[str, Any]) -> bool:
        """Count a client's complete upload, once."""
        at = self._at(client, round, purpose)
        update = f"the update of {at['name']} for round {round} ({purpose.value})"
        try:
            known = super().commit(key, client, round, purpose, word)
        except Refusal as refusal:
            if refusal.status in (403, 422) and self._is_new(client, round, purpose, refusal.code):
                line, level = f"{update} is refused: {refusal}", logging.WARNING
                tell("refused", line, level=level, **at, code=refusal.code, reason=str(refusal))
            raise
        if not known:
            tell("committed", f"{update} is here", level=logging.DEBUG, **at)
        return known

    def fail(self, client: str, round: int, purpose: Purpose, reason: str) -> None:
        """Note that a client cannot do it, and why."""
        super().fail(client, round, purpose, reason)
        if not self._is_new(client, round, purpose, "failed"):
            return
        at, reason = self._at(client, round, purpose), reason[:_LONGEST]
        line = f"{at['name']} cannot answer in round {round} ({purpose.value}): {reason}"
        tell("failed", line, level=logging.WARNING, **at, reason=reason)

    def pause(self) -> None:
        """Rest."""
        super().pause()
        self._changed_by_operator("paused")

    def resume(self) -> None:
        """Go on."""
        super().resume()
        self._changed_by_operator("resumed")

    def cancel(self) -> None:
        """End the run before its time."""
        super().cancel()
        self._changed_by_operator("cancelled")

    def end(self, **ended: Any) -> None:
        """Write down why the run is over."""
        super().end(**ended)
        told: dict[str, Any] = {name: ended.get(name) for name in ("state", "stopped", "digest")}
        tell("ended", f"{self.name} is {told['state']}: {told['stopped']}", run=self.key, name=self.name, **told)

    def _changed_by_operator(self, change: str) -> None:
        tell("changed", f"{self.name} is {change} by the operator", run=self.key, name=self.name, change=change)

    def _is_new(self, client: str, round: int, purpose: Purpose, what: str) -> bool:
        """Return whether this was not said of a client in this stage: who repeats itself does not fill the log."""
        if self._said[0] != round:
            self._said = round, set()
        said, what_of_whom = self._said[1], (purpose, client, what)
        is_new = what_of_whom not in said
        said.add(what_of_whom)
        return is_new

    def _at(self, client: str, round: int, purpose: Purpose) -> dict[str, Any]:
        name = self.members[self.members.position(client)].name if client in self.members else client
        return {"run": self.key, "round": round, "purpose": purpose.value, "client": client, "name": name}


class _Stderr(logging.Handler):
    """Writes to what standard error is at the time: a live line on a terminal takes its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except OSError:
            pass  # nobody reads it any more
