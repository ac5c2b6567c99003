"""One run of a coordinator: the sans-IO machine with a lock, a ledger and a spool around it.

The driver's thread opens stages and waits for them; the service's calls bring clients and their updates. Whatever
must survive a crash is written before the machine hears of it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from koinon.core.algorithm import Synchronous
from koinon.core.events import RoundRecord
from koinon.core.types import Purpose
from koinon.errors import FormatError
from koinon.fleet.coordinator import events, machine
from koinon.fleet.coordinator.access import revoked
from koinon.fleet.coordinator.figures import Book
from koinon.fleet.coordinator.ledger import Committed, Ledger
from koinon.fleet.coordinator.machine import Standing
from koinon.fleet.coordinator.members import Fared, Member, Members
from koinon.fleet.coordinator.notices import Notices
from koinon.fleet.coordinator.spool import Chunk, Spool, Upload
from koinon.fleet.coordinator.stage import OpenStage, Settled, StageJob, refuse_what_cannot_be_added
from koinon.fleet.coordinator.trouble import Trouble
from koinon.fleet.coordinator.voids import Voids
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey


class Cancelled(Exception):
    """The operator has ended the run."""


class FleetRun:
    """A run's clients, its open stage, and who is told what. Every method may be called from any thread."""

    def __init__(self, key: str, terms: Synchronous, ledger: Ledger, spool: Spool, clock: Callable[[], float]) -> None:
        self.key, self.ledger = key, ledger
        self._spool, self._clock = spool, clock
        self._changed = threading.Condition(threading.RLock())
        self._state = machine.State(terms, revoked=ledger.revoked(), paused=ledger.paused())
        self._open: OpenStage | None = None
        self._ended: dict[str, Any] | None = ledger.ended()
        self._cancelled = False
        self._voids = Voids()
        self._notices = Notices()
        self.trouble = Trouble(key, clock)
        self.members = Members()
        self.fared: dict[str, Fared] = {}
        self.figures = Book(clock)
        self.remember()

    # What the service asks.

    def on_change(self, wake: Callable[[Sequence[str]], None]) -> None:
        """Call ``wake`` with the clients that have something new, from any thread."""
        self._notices.on_change(wake)

    def join(self, member: Member) -> None:
        """Take a client in, or back. Raises Refusal for one that was revoked while it asked."""
        with self._changed:
            if member.client in self._state.revoked:
                raise revoked()
            position = self.members.add(member)
            self.ledger.join(member, position)
            self.fared.setdefault(member.client, Fared())
            self.figures.heard(member.client)
            self._handle(events.Present(member.client))

    def heard(self, client: str) -> None:
        """Note that a client has spoken: it may be asked again."""
        with self._changed:
            self.figures.heard(client)
            stage = self._state.stage
            standing = None if stage is None else stage.standings.get(client)
            if client not in self._state.present and standing is not Standing.FAILED:
                self._handle(events.Present(client))

    def work(self, client: str, since: int | None = None) -> dict[str, Any]:
        """Return what there is to do for a client: the answer of ``GET work``; ``since`` is what it knows already."""
        with self._changed:
            fared = self.fared.get(client, Fared())
            outcome = {"round": fared.round, "accepted": fared.accepted}
            told = {"serial": self._notices.serial(client), "outcome": outcome}
            if self._ended is not None:
                self._notices.has_heard(client, since)
                return {**told, **self._ended}
            stage, standings = self._open, {} if self._state.stage is None else self._state.stage.standings
            if stage is None or standings.get(client) is not Standing.ASKED:
                return {**told, "state": "idle"}
            left, job = self._due(), stage.job
            return {
                **told,
                "state": job.purpose.value,
                "round": job.round,
                "purpose": job.purpose.value,
                "cohort": job.cohort,
                "model": job.model,
                "bytes": job.model_bytes,
                "seconds": self._state.terms.longest if left is None else left,
                **({} if job.secure is None else job.secure.told),
            }

    def begin_upload(
        self, client: str, round: int, purpose: Purpose, claim: Claim, *, remembered: bool = True
    ) -> Upload:
        """Return a client's upload, new or as far as it has come; one that is ``remembered`` survives a crash half-way."""
        with self._changed:
            stage = self._asked(client, round, purpose)
            known = stage.uploads.get(client)
            if known is not None and known.claim == claim:
                return known
            stage.check_claim(client, claim)
            if remembered:
                self.ledger.write_upload(round, purpose, client, claim)
            upload = stage.uploads[client] = self._spool.open(self.key, stage.job.folder, client, claim)
            return upload

    def open_chunk(self, client: str, round: int, purpose: Purpose, number: int) -> Chunk | None:
        """Return where a chunk goes; None if it is there already."""
        with self._changed:
            stage = self._asked(client, round, purpose)
            upload = stage.upload(client, number)
            return None if client in stage.commits else upload.open_chunk(number)

    def commit(self, key: PublicKey, client: str, round: int, purpose: Purpose, word: Mapping[str, Any]) -> bool:
        """Count a client's complete upload, once; return whether it had been counted before.

        Raises Refusal for what is missing, unsigned, malformed or cannot be added.
        """
        with self._changed:
            stage = self._asked(client, round, purpose)
            upload = stage.uploads.get(client)
        commit = stage.signed(key, client, upload, word)
        assert upload is not None, "a signed commit has an upload"
        if self._known(stage, client, commit):
            return True
        if not upload.complete:
            raise Refusal(409, "incomplete", "Chunks are missing.", sorted(upload.have))
        try:
            commit = replace(commit, refused=stage.refused_leaves(client, upload, commit.weight))
        except FormatError as error:
            self.figures.failed(client, str(error))
            raise Refusal(422, "malformed", str(error)) from error
        with self._changed:
            if self._open is not stage or stage.settled is not None:
                raise Refusal(410, "over", f"Round {round} is over.")
            if self._known(stage, client, commit):
                return True
            if stage.uploads.get(client) is not upload:  # what was judged is not what would be added
                raise Refusal(409, "conflict", "Another update was announced while this one was checked.")
            self.ledger.write_upload(round, purpose, client, upload.claim, commit)
            stage.commits[client] = commit
            self.figures.answered(client)
            self._handle(events.Answered(client, not commit.refused))
        refuse_what_cannot_be_added(commit)
        return False

    def stir(self) -> None:
        """Let the driver look whether it can go on."""
        with self._changed:
            self._changed.notify_all()

    def fail(self, client: str, round: int, purpose: Purpose, reason: str) -> None:
        """Note that a client cannot do it, or cannot help to open the sum that its update is in, and why."""
        with self._changed:
            stage = self._asked(client, round, purpose, opening=True)
            self.figures.heard(client)
            self.figures.failed(client, reason)
            if stage.settled is not None:
                stage.refuse(client, reason)
            self._handle(events.Failed(client, reason))

    def revoke(self, client: str) -> None:
        """Take a client out, also one that has not joined: it may be about to."""
        with self._changed:
            self._handle(events.Revoked(client))
            self._notices.tell([client])

    def pause(self) -> None:
        """Rest until :meth:`resume`."""
        with self._changed:
            self.ledger.change(paused=True)
            self._handle(events.Pause())

    def resume(self) -> None:
        """Go on."""
        with self._changed:
            self.ledger.change(paused=False)
            self._handle(events.Resume())

    def cancel(self) -> None:
        """End the run before its time."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    # What the driver asks.

    def wait_for_members(self) -> None:
        """Return when as many clients are here as a round opens with."""
        with self._changed:
            while len(self._state.present) < self._state.terms.clients:
                self._rest(None)

    def wait_for_named(self, name: str) -> str:
        """Return the client that bears a name now, when it has joined. Says meanwhile that it is missing."""
        with self._changed:
            while not (found := [c for c in self.members.called(name) if c not in self._state.revoked]):
                self.trouble.note(f"the party {name!r} to join: all others are measured by its update")
                self._rest(5.0)
            return found[-1]

    def rest(self, seconds: float) -> None:
        """Wait; return early if the run is cancelled or anything changes."""
        with self._changed:
            self._rest(seconds)

    def settled(self, job: StageJob, draw: Sequence[str], reserve: Sequence[str]) -> Settled:
        """Open a stage and return it when it is over. Raises Cancelled."""
        with self._changed:
            stage = self._open = OpenStage(job, self.key, self.members, self.ledger, self._spool, self.figures)
            self._state = replace(self._state, stage=None, seal=None)  # left open when the store failed
            stage.drawn = () if job.secure is None else tuple(draw)
            row = self.ledger.stage(job.round, job.purpose) if job.begun else None
            if row is not None and row.model == job.model:
                stage.restore(row)
            elif job.begun:
                self._spool.forget(self.key, job.folder)
                row = None
            if stage.settled is None:
                known = {client: not word.refused for client, word in stage.commits.items()}
                event = job.opens(draw, reserve, self._awaited(job))
                self._handle(
                    event if row is None else replace(event, asked=row.asked, target=row.target, answered=known)
                )
                if row is not None:
                    self._notices.tell(row.asked)  # they may have looked before this process had opened it
            while stage.settled is None:
                self._rest(self._due() if job.secure is None else 1.0)
                self._handle(self._talked(stage))
            return stage.result(stage.settled)

    def sealed(self, step: str, silent: Sequence[str]) -> Settled | None:
        """Wait a moment for clients that a settled stage's sum cannot be opened without, if any; return it once it is void."""
        with self._changed:
            stage = self._open
            assert stage is not None and stage.settled is not None, "a sum is opened when its stage is settled"
            self._handle(events.Sealed(step, tuple(silent), dict(stage.refusals)) if silent else events.Unsealed())
            if stage.void is not None:
                return stage.result(stage.settled)
            self._rest(1.0)
            return None

    def unsealed(self) -> None:
        """Note that a settled stage's sum is open."""
        with self._changed:
            self._handle(events.Unsealed())

    def forget(self, round: int, outcomes: Mapping[str, bool]) -> None:
        """Close a committed round's stage, and tell its clients how they fared."""
        with self._changed:
            self._open = None
            self.trouble.over()
            for client, accepted in outcomes.items():
                self.fared[client] = self.fared.get(client, Fared()).after(round, accepted=accepted)

    def clear(self, round: int) -> None:
        """Drop the uploads of a committed round, and of those before."""
        for stage in self._spool.stages(self.key):
            if int(stage.partition("-")[0]) <= round:
                self._spool.forget(self.key, stage)

    def end(self, **ended: Any) -> None:
        """Write down why the run is over, and tell everybody."""
        with self._changed:
            self.ledger.change(ended=json.dumps(ended))
            self._ended = ended
            self._notices.tell_all()
            self._changed.notify_all()

    def remember(self) -> None:
        """Take over what is written of members and of how they fared: a commit may have held though nobody heard so."""
        with self._changed:
            for member, fared in self.ledger.members():
                self.members.add(member)
                self.fared[member.client] = fared

    def learnt(self, history: Sequence[RoundRecord]) -> None:
        """Take over how earlier rounds went."""
        with self._changed:
            made = [record.seconds for record in history if Purpose.TRAIN.value not in record.void]
            self._state = replace(self._state, durations=tuple(made))
            self._voids = reduce(Voids.after, history, Voids())

    def finished(self, record: RoundRecord) -> None:
        """Note how a round went."""
        self._voids = self._voids.after(record)

    # What is shown.

    @property
    def ended(self) -> dict[str, Any] | None:
        """How the run ended, or None."""
        return self._ended

    def all_told(self, clients: Iterable[str] | None = None) -> bool:
        """Return whether these, or all who are here, know that the run is over and have taken its result."""
        with self._changed:
            return self._ended is not None and self._notices.all_heard(clients or self._state.present)

    @property
    def terms(self) -> Synchronous:
        """Quorum and deadlines."""
        return self._state.terms

    def snapshot(self) -> tuple[machine.State, StageJob | None, float]:
        """Return the machine's state, the open stage, and the time."""
        with self._changed:
            return self._state, None if self._open is None else self._open.job, self._clock()

    # Within.

    def _asked(self, client: str, round: int, purpose: Purpose, *, opening: bool = False) -> OpenStage:
        """Return the stage if it is this one, is open or ``opening`` its sum, and asks this client. Raises Refusal."""
        stage = self._open
        if client not in self.members:
            raise Refusal(403, "not_joined", "This client has not joined the run.")
        if stage is None or not stage.takes(round, purpose, opening=opening):
            raise Refusal(410, "over", f"Round {round} ({purpose.value}) is not open.")
        if client not in stage.asked:
            raise Refusal(403, "not_asked", f"This client is not asked in round {round}.")
        return stage

    def _known(self, stage: OpenStage, client: str, commit: Committed) -> bool:
        """Return whether the same was committed before."""
        known = stage.known(client, commit)
        if known is None:
            return False
        with self._changed:
            if self._open is stage:  # the machine has not heard of it if the store failed just then
                self._handle(events.Answered(client, not known.refused))
        refuse_what_cannot_be_added(known)
        return True

    def _handle(self, event: events.Event) -> None:
        """Hand an event to the machine; if what follows cannot be written, nothing has happened."""
        before, (state, commands) = self._state.stage, machine.handle(self._state, event, self._clock())
        for command in commands:
            if isinstance(command, events.Wake):
                continue
            assert self._open is not None, "commands are about the open stage"
            match command:
                case events.Ask():
                    self._open.ask(command)
                    self._notices.tell(command.clients)
                case events.Settle():
                    self._open.settle(command)
                case events.Void():
                    self._open.lapse(command, 0 if before is None else machine.quorum(before, self._state.terms))
        self._state = state
        self._changed.notify_all()
        self._notices.stir()

    def _talked(self, stage: OpenStage) -> events.Event:
        """Let a secure sum take in what has come; if it begins anew, tell everybody."""
        secure, now = stage.job.secure, self._state.stage
        if secure is None or now is None:
            return events.Tick()
        left = self._state.terms.longest if now.deadline is None and not self._state.paused else self._due()
        if secure.turn(now.of(Standing.ASKED), left, self._clock()):
            self._notices.tell(stage.asked)
        shared = secure.sharers is not None  # before, those that are left begin anew, and fewer will do
        return events.Needed((secure.least if shared else None) or stage.job.least, stage.job.lapses or shared)

    def _awaited(self, job: StageJob) -> dict[str, str]:
        """Return who has to come back before a round begins after so many that came to nothing."""
        names = self._voids.awaited if job.purpose is Purpose.TRAIN else ()
        return {client: name for name in names for client in self.members.called(name)[-1:]}

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
