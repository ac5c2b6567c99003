"""One run of a coordinator: the sans-IO machine with a lock, a ledger and a spool around it.

The driver's thread opens stages and waits for them; the service's calls bring clients and their updates. Whatever
must survive a crash is written before the machine hears of it.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from koinon.core.algorithm import Synchronous
from koinon.core.types import Purpose
from koinon.errors import FormatError
from koinon.exact import LARGEST_WEIGHT
from koinon.fleet import coordinator as machine
from koinon.fleet.coordinator import Standing
from koinon.fleet.ledger import Committed, Ledger, StageRow
from koinon.fleet.members import Member, Members
from koinon.fleet.payload import Expected, Received
from koinon.fleet.refusal import Refusal
from koinon.fleet.signatures import PublicKey, decoded, root, signed_text
from koinon.fleet.spool import Chunk, Claim, Spool, Upload
from koinon.fleet.trouble import Trouble
from koinon.tree import Array


class Clock(Protocol):
    """Seconds that never go back."""

    def __call__(self) -> float:
        """Return the time."""


@dataclass(frozen=True)
class StageJob:
    """One stage as the driver asks for it."""

    round: int
    purpose: Purpose
    model: str  # blob of what is broadcast
    model_bytes: int
    cohort: int
    key: Callable[[str], Array]  # of a client's task
    expected: Expected

    @property
    def folder(self) -> str:
        """What the stage's uploads lie under."""
        return f"{self.round}-{self.purpose.value}"


@dataclass(frozen=True)
class Settled:
    """A stage that is over."""

    received: tuple[Received, ...]
    commits: Mapping[str, Committed]  # of everyone who was asked and committed
    lost: Mapping[str, str]
    asked: tuple[str, ...]


class Figures:
    """What is counted of one client while this process runs: shown, and never decided upon."""

    def __init__(self, heard: float) -> None:
        self.heard = heard
        self.bytes_received = self.bytes_sent = self.rounds_done = 0
        self.upload_seconds = 0.0
        self.last_round_seconds: float | None = None
        self.last_error: str | None = None
        self.asked_at: float | None = None


class _Bench:
    """The open stage and everything that has come for it."""

    def __init__(self, job: StageJob) -> None:
        self.job = job
        self.uploads: dict[str, Upload] = {}
        self.commits: dict[str, Committed] = {}
        self.settled: machine.Settle | None = None
        self.asked: tuple[str, ...] = ()


class Cancelled(Exception):
    """The operator has ended the run."""


class FleetRun:
    """A run's clients, its open stage, and who is told what. Every method may be called from any thread."""

    def __init__(self, key: str, terms: Synchronous, ledger: Ledger, spool: Spool, clock: Clock) -> None:
        self.key, self.ledger = key, ledger
        self._spool, self._clock = spool, clock
        self._changed = threading.Condition(threading.RLock())
        self._state = machine.State(terms, paused=ledger.paused())
        self._bench: _Bench | None = None
        self._ended: dict[str, Any] | None = ledger.ended()
        self._cancelled = False
        self._serials: dict[str, int] = {}
        self._first_serial = secrets.randbits(40)  # an earlier process' numbers mean nothing to this one
        self._wake: Callable[[Sequence[str]], None] = lambda clients: None
        self._told: set[str] = set()  # who has heard that the run is over
        self.trouble = Trouble(key, clock)
        self.members = Members()
        self.outcomes: dict[str, tuple[int, bool]] = {}
        self.figures: dict[str, Figures] = {}
        for member, round, accepted in ledger.members():
            self.members.add(member)
            self.outcomes[member.client] = (round, accepted)

    # What the service asks.

    def on_change(self, wake: Callable[[Sequence[str]], None]) -> None:
        """Call ``wake`` with the clients that have something new, from any thread."""
        self._wake = wake

    def join(self, member: Member) -> None:
        """Take a client in, or back."""
        with self._changed:
            position = self.members.add(member)
            self.ledger.join(member, position, self.outcomes.setdefault(member.client, (0, False)))
            self._heard(member.client)
            self._handle(machine.Present(member.client))

    def heard(self, client: str) -> None:
        """Note that a client has spoken: it may be asked again."""
        with self._changed:
            self._heard(client)
            stage = self._state.stage
            standing = None if stage is None else stage.standings.get(client)
            if client not in self._state.present and standing is not Standing.FAILED:
                self._handle(machine.Present(client))

    def work(self, client: str, since: int | None = None) -> dict[str, Any]:
        """Return what there is to do for a client: the answer of ``GET work``; ``since`` is what it knows already."""
        with self._changed:
            serial = self._serials.setdefault(client, self._first_serial)
            round, accepted = self.outcomes.get(client, (0, False))
            told = {"serial": serial, "outcome": {"round": round, "accepted": accepted}}
            if self._ended is not None:
                if since == serial:  # it asks again, so it has the result and all else it wants
                    self._told.add(client)
                return {**told, **self._ended}
            bench, stage = self._bench, self._state.stage
            if bench is None or stage is None or stage.standings.get(client) is not Standing.ASKED:
                return {**told, "state": "idle"}
            left = self._state.terms.longest if stage.deadline is None else stage.deadline - self._clock()
            return {
                **told,
                "state": bench.job.purpose.value,
                "round": bench.job.round,
                "purpose": bench.job.purpose.value,
                "cohort": bench.job.cohort,
                "model": bench.job.model,
                "bytes": bench.job.model_bytes,
                "seconds": max(0.0, left),
            }

    def begin_upload(self, client: str, round: int, purpose: Purpose, claim: Claim) -> Upload:
        """Return a client's upload, new or as far as it has come."""
        with self._changed:
            bench = self._open(client, round, purpose)
            known = bench.uploads.get(client)
            if known is not None and known.claim == claim:
                return known
            if client in bench.commits:
                raise Refusal(409, "conflict", "Another update was committed for this round. It counts, not this one.")
            if claim.size > (most := bench.job.expected.most_bytes):
                raise Refusal(
                    413, "too_large", f"An update has at most {most:,} bytes here; {claim.size:,} were announced."
                )
            self.ledger.write_upload(round, purpose, client, claim)
            upload = self._spool.open(self.key, bench.job.folder, client, claim)
            bench.uploads[client] = upload
            return upload

    def open_chunk(self, client: str, round: int, purpose: Purpose, number: int) -> Chunk | None:
        """Return where a chunk goes; None if it is there already."""
        with self._changed:
            bench = self._open(client, round, purpose)
            upload = bench.uploads.get(client)
            if upload is None:
                raise Refusal(404, "unknown", "No update was announced for this round. Announce it first.")
            if not 0 <= number < len(upload.claim.digests):
                raise Refusal(404, "unknown", f"The update has {len(upload.claim.digests)} chunks, from 0.")
            return None if client in bench.commits else upload.open_chunk(number)

    def commit(self, key: PublicKey, client: str, round: int, purpose: Purpose, word: Mapping[str, Any]) -> bool:
        """Count a client's complete upload, once; return whether it had been counted before.

        Raises Refusal for what is missing, unsigned, malformed or cannot be added.
        """
        with self._changed:
            bench = self._open(client, round, purpose)
            upload = bench.uploads.get(client)
        commit = self._signed(key, client, bench, upload, word)
        assert upload is not None, "a signed commit has an upload"
        if self._known(bench, client, commit):
            return True
        if not upload.complete:
            raise Refusal(409, "incomplete", "Chunks are missing.", have=sorted(upload.have))
        commit = replace(commit, refused=self._refused_leaves(bench, client, upload, commit.weight))
        with self._changed:
            if self._bench is not bench or bench.settled is not None:
                raise Refusal(410, "over", f"Round {round} is over.")
            if self._known(bench, client, commit):
                return True
            if bench.uploads.get(client) is not upload:  # what was judged is not what would be added
                raise Refusal(409, "conflict", "Another update was announced while this one was checked.")
            self.ledger.write_upload(round, purpose, client, upload.claim, commit)
            bench.commits[client] = commit
            self._heard(client)
            self._timed(client)
            self._handle(machine.Answered(client, not commit.refused))
        self._judged(commit)
        return False

    def fail(self, client: str, round: int, purpose: Purpose, reason: str) -> None:
        """Note that a client cannot do it, and why."""
        with self._changed:
            self._open(client, round, purpose)
            self._heard(client)
            self.figures[client].last_error = reason
            self._handle(machine.Failed(client, reason))

    def revoke(self, client: str) -> None:
        """Take a client out."""
        with self._changed:
            self._handle(machine.Revoked(client))
            self._tell([client])

    def pause(self) -> None:
        """Rest until :meth:`resume`."""
        with self._changed:
            self.ledger.change(paused=True)
            self._handle(machine.Pause())

    def resume(self) -> None:
        """Go on."""
        with self._changed:
            self.ledger.change(paused=False)
            self._handle(machine.Resume())

    def cancel(self) -> None:
        """End the run before its time."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    # What the driver asks.

    def wait_for_members(self, count: int) -> None:
        """Return when so many clients are here."""
        with self._changed:
            while len(self._state.present) < count:
                self._rest(None)

    def rest(self, seconds: float) -> None:
        """Wait; return early if the run is cancelled or anything changes."""
        with self._changed:
            self._rest(seconds)

    def settled(self, job: StageJob, draw: Sequence[str], reserve: Sequence[str]) -> Settled:
        """Open a stage and return it when it is over. Raises Cancelled."""
        with self._changed:
            bench = self._bench = _Bench(job)
            self._state = replace(self._state, stage=None)  # left open when the store failed
            row = self.ledger.stage(job.round, job.purpose)
            if row is not None and row.model == job.model:
                self._restore(bench, row)
            else:
                self._spool.forget(self.key, job.folder)
                row = None
            if bench.settled is None:
                known = {} if row is None else {c: not word.refused for c, word in bench.commits.items()}
                event = machine.Open(
                    tuple(draw), tuple(reserve), target=0 if row is None else row.target, answered=known
                )
                self._handle(event if row is None else replace(event, asked=row.asked))
            while bench.settled is None:
                self._rest(self._due())
                self._handle(machine.Tick())
            return self._result(bench, bench.settled)

    def forget(self, round: int, outcomes: Mapping[str, bool]) -> None:
        """Drop what a committed round no longer needs, and tell its clients how they fared."""
        with self._changed:
            self._bench = None
            self.trouble.over()
            self.outcomes |= {client: (round, accepted) for client, accepted in outcomes.items()}
            for client, accepted in outcomes.items():
                self.figures.setdefault(client, Figures(self._clock())).rounds_done += accepted
        for stage in self._spool.stages(self.key):
            if int(stage.partition("-")[0]) <= round:
                self._spool.forget(self.key, stage)

    def end(self, **ended: Any) -> None:
        """Write down why the run is over, and tell everybody."""
        with self._changed:
            self.ledger.change(ended=json.dumps(ended))
            self._ended = ended
            self._tell(list(self._serials))
            self._changed.notify_all()

    def learnt(self, durations: Sequence[float]) -> None:
        """Take over how long earlier rounds took."""
        with self._changed:
            self._state = replace(self._state, durations=tuple(durations))

    # What is shown.

    @property
    def ended(self) -> dict[str, Any] | None:
        """How the run ended, or None."""
        return self._ended

    @property
    def all_told(self) -> bool:
        """Whether everybody who is here knows that the run is over and has taken its result."""
        with self._changed:
            return self._ended is not None and self._state.present <= self._told

    @property
    def terms(self) -> Synchronous:
        """Quorum and deadlines."""
        return self._state.terms

    def snapshot(self) -> tuple[machine.State, StageJob | None, float]:
        """Return the machine's state, the open stage, and the time."""
        with self._changed:
            return self._state, None if self._bench is None else self._bench.job, self._clock()

    # Within.

    def _open(self, client: str, round: int, purpose: Purpose) -> _Bench:
        bench = self._bench
        if client not in self.members:
            raise Refusal(403, "not_joined", "This client has not joined the run.")
        if bench is None or (bench.job.round, bench.job.purpose) != (round, purpose) or bench.settled is not None:
            raise Refusal(410, "over", f"Round {round} ({purpose.value}) is not open.")
        if client not in bench.asked:
            raise Refusal(403, "not_asked", f"This client is not asked in round {round}.")
        return bench

    def _signed(
        self, key: PublicKey, client: str, bench: _Bench, upload: Upload | None, word: Mapping[str, Any]
    ) -> Committed:
        weight, given, model = word["weight"], word["root"], word["model"]
        if upload is None or given != upload.claim.root:
            raise Refusal(
                409, "incomplete", "This content was not announced for this round. Announce it first.", have=[]
            )
        if not 1 <= weight < LARGEST_WEIGHT:
            raise Refusal(422, "malformed", f"A weight is a whole number from 1 to {LARGEST_WEIGHT - 1}.")
        job, size = bench.job, upload.claim.size
        lines = (self.key, job.round, job.purpose.value, client, job.model, given, size, weight)
        if model != job.model or not key.signed(decoded(word["signature"]), signed_text("update", *lines)):
            raise Refusal(403, "signature", "The signature is not this client's over this round, model and content.")
        return Committed(root(list(upload.claim.digests)), size, weight, word["signature"])

    def _known(self, bench: _Bench, client: str, commit: Committed) -> bool:
        """Return whether the same was committed before; P-256 signs the same anew each time. Raises Refusal."""
        known = bench.commits.get(client)
        if known is None:
            return False
        if (known.root, known.size, known.weight) != (commit.root, commit.size, commit.weight):
            raise Refusal(409, "conflict", "Another update was committed for this round. It counts, not this one.")
        with self._changed:
            if self._bench is bench:  # the machine has not heard of it if the store failed just then
                self._handle(machine.Answered(client, not known.refused))
        self._judged(known)
        return True

    def _refused_leaves(self, bench: _Bench, client: str, upload: Upload, weight: int) -> tuple[str, ...]:
        """Return the leaves that cannot be added. Raises Refusal for a file that is not an update."""
        job = bench.job
        try:
            job.expected.check(upload.layout())
            position = self.members.position(client)
            received = Received(position, upload, weight, job.key(client), job.cohort)
            job.expected.check_metrics(received.metrics())
            verdicts = received.verdicts(job.expected)
        except FileNotFoundError as error:
            raise Refusal(409, "conflict", "Another update was announced while this one was checked.") from error
        except FormatError as error:
            upload.have.clear()
            self._note(client, str(error))
            raise Refusal(422, "malformed", str(error)) from error
        return tuple(name for name, good in verdicts.items() if not good)

    def _judged(self, commit: Committed) -> None:
        if commit.refused:
            raise Refusal(
                422,
                "refused",
                f"The update cannot be added: {', '.join(commit.refused[:3])} is not finite or too large. The round goes on "
                "without it. Lower the learning rate, scale the inputs, or put Clip into the channel.",
            )

    def _restore(self, bench: _Bench, row: StageRow) -> None:
        """Take over what an earlier process kept of a stage: every upload is checked anew."""
        job = bench.job
        bench.asked = row.asked
        for client, (claim, commit) in self.ledger.uploads(job.round, job.purpose).items():
            upload = bench.uploads[client] = self._spool.open(self.key, job.folder, client, claim)
            if commit is not None and upload.complete:
                bench.commits[client] = commit
        if row.settled is not None and all(client in bench.commits for client in row.settled):
            bench.settled = machine.Settle(row.settled, row.lost)

    def _result(self, bench: _Bench, settle: machine.Settle) -> Settled:
        job = bench.job
        received = [
            Received(
                self.members.position(c), bench.uploads[c], bench.commits[c].weight, job.key(c), job.cohort
            )
            for c in settle.clients
        ]  # fmt: skip
        received.sort(key=lambda part: part.client)
        return Settled(tuple(received), dict(bench.commits), settle.lost, bench.asked)

    def _handle(self, event: machine.Event) -> None:
        """Hand an event to the machine; if what follows cannot be written, nothing has happened."""
        state, commands = machine.handle(self._state, event, self._clock())
        for command in commands:
            if isinstance(command, machine.Ask):
                self._ask(command)
            elif isinstance(command, machine.Settle):
                self._settle(command)
        self._state = state
        self._changed.notify_all()

    def _ask(self, command: machine.Ask) -> None:
        bench = self._bench
        assert bench is not None, "clients are asked for an open stage"
        job, asked = bench.job, tuple(sorted({*bench.asked, *command.clients}))
        self.ledger.write_stage(job.round, job.purpose, StageRow(job.model, asked, command.target, None, {}))
        bench.asked = asked
        for client in command.clients:
            self.figures.setdefault(client, Figures(self._clock())).asked_at = self._clock()
        self._tell(command.clients)

    def _settle(self, command: machine.Settle) -> None:
        bench = self._bench
        assert bench is not None, "an open stage is settled"
        job = bench.job
        row = StageRow(job.model, bench.asked, len(command.clients), command.clients, command.lost)
        self.ledger.write_stage(job.round, job.purpose, row)
        bench.settled = command
        for client, why in command.lost.items():
            self._note(client, why)

    def _tell(self, clients: Sequence[str]) -> None:
        for client in clients:
            self._serials[client] = self._serials.get(client, self._first_serial) + 1
        self._wake(clients)

    def _rest(self, seconds: float | None) -> None:
        if self._cancelled:
            raise Cancelled
        self._changed.wait(seconds)
        if self._cancelled:
            raise Cancelled

    def _due(self) -> float | None:
        """Return the seconds until the open stage's time is up."""
        stage = self._state.stage
        if stage is None or stage.deadline is None or self._state.paused:
            return None
        return max(0.0, stage.deadline - self._clock())

    def _heard(self, client: str) -> None:
        self.figures.setdefault(client, Figures(self._clock())).heard = self._clock()

    def _timed(self, client: str) -> None:
        own = self.figures[client]
        if own.asked_at is not None:
            own.last_round_seconds = self._clock() - own.asked_at

    def _note(self, client: str, error: str) -> None:
        self.figures.setdefault(client, Figures(self._clock())).last_error = error
