"""What a coordinator logs: one record an event, as a short line for people or as one JSON object for programs.

No event has a field for a token, a key or a number of any model. Nothing is installed before :func:`install`.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar

from koinon.core.algorithm import Synchronous
from koinon.core.events import RoundRecord
from koinon.core.types import Purpose
from koinon.fleet.coordinator.access import Access, Client
from koinon.fleet.coordinator.ledger import Ledger, StageRow
from koinon.fleet.coordinator.members import Member
from koinon.fleet.coordinator.run import FleetRun
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey
from koinon.report.terminal import printable

_LOG = logging.getLogger("koinon.fleet.events")
_LONGEST = 500  # characters of what a party wrote
_HEARD = ("koinon", "uvicorn", "asyncio")  # the loggers that a coordinator's process shows


class Event:
    """Something that happened. A subclass is a frozen record; what it is as text is for people."""

    level: ClassVar[int] = logging.INFO
    plain: ClassVar[bool] = True  # whether people are told: of a run's course they have other lines


@dataclass(frozen=True)
class Started(Event):
    """The coordinator serves."""

    plain: ClassVar[bool] = False
    url: str
    version: str
    runs: Mapping[str, str]  # identifier -> name

    def __str__(self) -> str:
        return f"serving {', '.join(self.runs.values())} at {self.url}"


@dataclass(frozen=True)
class Stopped(Event):
    """The coordinator ends."""

    plain: ClassVar[bool] = False
    seconds: float

    def __str__(self) -> str:
        return f"the coordinator ends after {self.seconds:.0f} s"


@dataclass(frozen=True)
class Enrolled(Event):
    """An invitation was used."""

    client: str
    name: str
    kind: str  # of the key

    def __str__(self) -> str:
        return f"{self.name} has enrolled ({self.client})"


@dataclass(frozen=True)
class Revoked(Event):
    """The operator has shut a party out."""

    client: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} is shut out ({self.client})"


@dataclass(frozen=True)
class Joined(Event):
    """A party takes part in a run, or is back."""

    run: str
    client: str
    name: str
    train_examples: int
    held_out_examples: int

    def __str__(self) -> str:
        return f"{self.name} has joined with {self.train_examples:,} examples"


@dataclass(frozen=True)
class Asked(Event):
    """A stage asks clients, for the first time or more of them."""

    level: ClassVar[int] = logging.DEBUG
    run: str
    round: int
    purpose: str
    asked: int  # clients, all together
    wanted: int  # answers

    def __str__(self) -> str:
        return f"round {self.round} ({self.purpose}) asks {self.asked} clients"


@dataclass(frozen=True)
class Settled(Event):
    """A stage is over."""

    level: ClassVar[int] = logging.DEBUG
    run: str
    round: int
    purpose: str
    asked: int
    counted: int
    lost: Mapping[str, str]  # identifier -> why
    seconds: float | None  # since it asked first; None if an earlier process did

    def __str__(self) -> str:
        return f"round {self.round} ({self.purpose}) has {self.counted} of {self.asked} answers"


@dataclass(frozen=True)
class Committed(Event):
    """A client's update is written down and counts."""

    level: ClassVar[int] = logging.DEBUG
    run: str
    round: int
    purpose: str
    client: str
    name: str

    def __str__(self) -> str:
        return f"the update of {self.name} for round {self.round} ({self.purpose}) is here"


@dataclass(frozen=True)
class Refused(Event):
    """A client's update does not count."""

    level: ClassVar[int] = logging.WARNING
    run: str
    round: int
    purpose: str
    client: str
    name: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"the update of {self.name} for round {self.round} ({self.purpose}) is refused: {self.reason}"


@dataclass(frozen=True)
class Failed(Event):
    """A client says that it cannot."""

    level: ClassVar[int] = logging.WARNING
    run: str
    round: int
    purpose: str
    client: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} cannot answer in round {self.round} ({self.purpose}): {self.reason}"


@dataclass(frozen=True)
class Finished(Event):
    """A round is committed."""

    plain: ClassVar[bool] = False
    run: str
    round: int
    cohort: int
    refused: int
    lost: int
    seconds: float
    figures: Mapping[str, float]

    @classmethod
    def of(cls, run: str, record: RoundRecord) -> Finished:
        """Return the event of a round's record."""
        refused, lost = len(record.refused), len(record.lost)
        return cls(run, record.round, record.cohort, refused, lost, record.seconds, record.figures)

    def __str__(self) -> str:
        return f"round {self.round} is done"


@dataclass(frozen=True)
class Changed(Event):
    """The operator has paused, resumed or cancelled a run."""

    run: str
    name: str
    change: str

    def __str__(self) -> str:
        return f"{self.name} is {self.change} by the operator"


@dataclass(frozen=True)
class Ended(Event):
    """A run is over."""

    plain: ClassVar[bool] = False
    run: str
    name: str
    state: str
    stopped: str
    digest: str | None

    def __str__(self) -> str:
        return f"{self.name} is {self.state}: {self.stopped}"


def tell(event: Event) -> None:
    """Log an event."""
    _LOG.log(event.level, event)


def install(*, as_json: bool) -> None:
    """Show a coordinator's log on standard error; for a process that is koinon's own. Again: in place of the old."""
    handler = _Stderr()
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    if not as_json:
        handler.addFilter(_is_for_people)
    for name in _HEARD:
        logging.getLogger(name).handlers = [handler]
        logging.getLogger(name).propagate = False
    logging.getLogger("koinon.fleet").setLevel(logging.DEBUG if as_json else logging.INFO)


class JsonFormatter(logging.Formatter):
    """One JSON object a record: ``time`` (UTC), ``level``, ``event``, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, in one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {"time": at.replace("+00:00", "Z"), "level": record.levelname.lower()}
        if isinstance(event := record.msg, Event):
            own = {field.name: getattr(event, field.name) for field in fields(event)}  # type: ignore[arg-type]
            told |= {"event": type(event).__name__.lower(), **own}
        else:
            word = "trouble" if record.levelno >= logging.WARNING else "message"
            told |= {"event": word, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(_finite(told), allow_nan=False)


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
            tell(Enrolled(client.client, client.name, client.key.kind.value))
        return client

    def revoke(self, client: str) -> None:
        """Shut a client out."""
        super().revoke(client)
        tell(Revoked(client, self.client(client).name))


class LoggedLedger(Ledger):
    """A ledger that logs the stages it writes."""

    _began: tuple[int, Purpose, float] | None = None

    def write_stage(self, round: int, purpose: Purpose, row: StageRow) -> None:
        """Write whom a stage asks, or whose updates made it."""
        super().write_stage(round, purpose, row)
        now, run, asked = time.monotonic(), self.folder.name, len(row.asked)
        if row.settled is None:
            if self._began is None or self._began[:2] != (round, purpose):
                self._began = round, purpose, now
            tell(Asked(run, round, purpose.value, asked, row.target))
            return
        began = self._began
        seconds = now - began[2] if began is not None and began[:2] == (round, purpose) else None
        tell(Settled(run, round, purpose.value, asked, len(row.settled), dict(row.lost), seconds))


class LoggedRun(FleetRun):
    """A run that logs what its clients and its operator do."""

    def __init__(
        self, name: str, key: str, terms: Synchronous, ledger: Ledger, spool: Spool, clock: Callable[[], float]
    ) -> None:
        super().__init__(key, terms, ledger, spool, clock)
        self.name = name

    def join(self, member: Member) -> None:
        """Take a client in, or back."""
        super().join(member)
        tell(Joined(self.key, member.client, member.name, member.train, member.held_out))

    def commit(self, key: PublicKey, client: str, round: int, purpose: Purpose, word: Mapping[str, Any]) -> bool:
        """Count a client's complete upload, once."""
        at = self.key, round, purpose.value, client, self._named(client)
        try:
            known = super().commit(key, client, round, purpose, word)
        except Refusal as refusal:
            if refusal.status in (403, 422):
                tell(Refused(*at, refusal.code, str(refusal)))
            raise
        if not known:
            tell(Committed(*at))
        return known

    def fail(self, client: str, round: int, purpose: Purpose, reason: str) -> None:
        """Note that a client cannot do it, and why."""
        super().fail(client, round, purpose, reason)
        tell(Failed(self.key, round, purpose.value, client, self._named(client), reason[:_LONGEST]))

    def pause(self) -> None:
        """Rest."""
        super().pause()
        tell(Changed(self.key, self.name, "paused"))

    def resume(self) -> None:
        """Go on."""
        super().resume()
        tell(Changed(self.key, self.name, "resumed"))

    def cancel(self) -> None:
        """End the run before its time."""
        super().cancel()
        tell(Changed(self.key, self.name, "cancelled"))

    def end(self, **ended: Any) -> None:
        """Write down why the run is over."""
        super().end(**ended)
        tell(Ended(self.key, self.name, ended["state"], ended["stopped"], ended.get("digest")))

    def _named(self, client: str) -> str:
        return self.members[self.members.position(client)].name if client in self.members else client


class _Stderr(logging.Handler):
    """Writes to what standard error is at the time: a live line on a terminal takes its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except OSError:
            pass  # nobody reads it any more


def _is_for_people(record: logging.LogRecord) -> bool:
    return not isinstance(record.msg, Event) or record.msg.plain


def _finite(value: Any) -> Any:
    """Return JSON: it has no word for a figure that is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
