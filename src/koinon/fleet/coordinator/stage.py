"""The open stage of a run and everything that has come for it: who may send what, and whether it can be added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from koinon.core.types import Purpose
from koinon.errors import FormatError
from koinon.exact import LARGEST_WEIGHT
from koinon.fleet.coordinator.encrypted import EncryptedRound
from koinon.fleet.coordinator.events import Ask, Open, Settle, Void
from koinon.fleet.coordinator.figures import Book
from koinon.fleet.coordinator.ledger import Committed, Ledger, StageRow
from koinon.fleet.coordinator.machine import SILENT
from koinon.fleet.coordinator.members import Members
from koinon.fleet.coordinator.payload import Expected, Received
from koinon.fleet.coordinator.secure_sum import SecureRound
from koinon.fleet.coordinator.spool import Spool, Upload
from koinon.fleet.coordinator.voids import UNWILLING, void_reason
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey, decoded, signed_text
from koinon.privacy.mechanism import CentralMechanism
from koinon.round.hidden import too_few_drawn
from koinon.tree import Array


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
    least: int  # answers that are of any use
    newcomers: bool  # whether whoever joins meanwhile may take the place of one that is missing
    begun: bool = True  # whether an earlier process may have begun it
    essential: tuple[str, ...] = ()  # clients without whose update all others are of no use
    secure: SecureRound | EncryptedRound | None = None  # where updates come masked or encrypted

    @property
    def lapses(self) -> bool:
        """Whether it is void when too few have answered in time: nothing waits for figures that too few can make."""
        return self.secure is not None and self.purpose is Purpose.EVALUATE

    @property
    def closed(self) -> bool:
        """Whether it is void when fewer are left of those it was drawn with than a sum has at least: nobody takes a place."""
        return self.secure is not None and not self.newcomers

    def opens(self, draw: Sequence[str], reserve: Sequence[str], awaited: Mapping[str, str]) -> Open:
        """Return the event with which it begins."""
        return Open(
            tuple(draw),
            tuple(reserve),
            least=self.least,
            newcomers=self.newcomers,
            closed=self.closed,
            essential=self.essential,
            lapses=self.lapses,
            awaited=awaited,
            begins=self.purpose is Purpose.TRAIN,
        )

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
    void: str | None = None  # why it has no result


class OpenStage:
    """A stage's uploads and commits, and what is written of it. Whoever holds it sees to the order of calls."""

    def __init__(
        self, job: StageJob, run: str, members: Members, ledger: Ledger, spool: Spool, figures: Book
    ) -> None:  # fmt: skip
        self.job = job
        self.uploads: dict[str, Upload] = {}
        self.commits: dict[str, Committed] = {}
        self.settled: Settle | None = None
        self.void: str | None = None
        self.refusals: dict[str, str] = {}  # why clients do not help to open its sum
        self.asked: tuple[str, ...] = ()
        self.drawn: tuple[str, ...] = ()
        self._run, self._members = run, members
        self._ledger, self._spool, self._figures = ledger, spool, figures

    def restore(self, row: StageRow) -> None:
        """Take over what an earlier process kept: every upload is checked anew."""
        job = self.job
        self.asked = row.asked
        for client, (claim, commit) in self._ledger.uploads(job.round, job.purpose).items():
            upload = self.uploads[client] = self._spool.open(self._run, job.folder, client, claim)
            if commit is not None and upload.complete:
                self.commits[client] = commit
        if row.settled is not None and all(client in self.commits for client in row.settled):
            self.settled, self.void, self.refusals = Settle(row.settled, row.lost), row.void, dict(row.refusals)

    def takes(self, round: int, purpose: Purpose, *, opening: bool) -> bool:
        """Return whether it is this stage, and open; or, if ``opening`` will do, settled while its masked sum is opened."""
        if (self.job.round, self.job.purpose) != (round, purpose):
            return False
        masked = isinstance(self.job.secure, SecureRound) and self.void is None
        return self.settled is None or (opening and masked)

    def ask(self, command: Ask) -> None:
        """Write down that these clients are asked, too."""
        job, asked = self.job, tuple(sorted({*self.asked, *command.clients}))
        row = StageRow(job.model, asked, command.target, None, {}, drawn=self.drawn)
        self._ledger.write_stage(job.round, job.purpose, row)
        self.asked = asked
        for client in command.clients:
            self.commits.pop(client, None)  # of one that was refused: another may take its place
            self._figures.asked(client)

    def settle(self, command: Settle, void: str | None = None) -> None:
        """Write down whose updates make the stage, or why it is ``void``."""
        self._write_settled(command, void, self.refusals)
        self.settled, self.void = command, void
        for client, why in command.lost.items():
            self._figures.failed(client, why)

    def refuse(self, client: str, reason: str) -> None:
        """Write down that a client does not help to open the settled stage's sum: it says so once, to whoever serves."""
        assert self.settled is not None, "there is no sum to be opened before"
        refusals = {**self.refusals, client: UNWILLING + reason}
        self._write_settled(self.settled, self.void, refusals)
        self.refusals = refusals

    def _write_settled(self, over: Settle, void: str | None, refusals: Mapping[str, str]) -> None:
        job, clients = self.job, over.clients
        row = StageRow(job.model, self.asked, len(clients), clients, over.lost, void, self.drawn, refusals)
        self._ledger.write_stage(job.round, job.purpose, row)

    def lapse(self, command: Void, quorum: int = 0) -> None:
        """Settle without anybody: not even those who answered make anything. ``quorum`` is how many the schedule asks for."""
        secure, before = self.job.secure, {} if self.settled is None else self.settled.lost
        assert secure is not None, "only a sum that hides its parts can be void"
        own = {
            c: why for c, why in command.lost.items() if secure.sharers is None or c in secure.sharers or why != SILENT
        }
        named = {c: self._members[self._members.position(c)].name for c in command.silent if c in own}
        silent = sorted(name for c, name in named.items() if own[c] == SILENT)
        least = max(secure.least or self.job.least, quorum)
        why = void_reason(silent, sorted(set(named.values()).difference(silent)), least)
        if len(self.drawn) < least and not self.asked:
            why = too_few_drawn(len(self.drawn), least)
        self.settle(Settle((), {**dict.fromkeys(self.asked, why), **before, **own}), why)

    def check_claim(self, client: str, claim: Claim) -> None:
        """Raise Refusal unless a client may announce such an update."""
        if client in self.commits:
            raise conflict()
        if claim.size > (most := self.job.expected.most_bytes):
            raise Refusal(
                413, "too_large", f"An update has at most {most:,} bytes here; {claim.size:,} were announced."
            )

    def upload(self, client: str, chunk: int) -> Upload:
        """Return what a chunk belongs to. Raises Refusal for one that was not announced."""
        upload = self.uploads.get(client)
        if upload is None:
            raise Refusal(404, "unknown", "No update was announced for this round. Announce it first.")
        if not 0 <= chunk < len(upload.claim.digests):
            raise Refusal(404, "unknown", f"The update has {len(upload.claim.digests)} chunks, from 0.")
        return upload

    def signed(self, key: PublicKey, client: str, upload: Upload | None, word: Mapping[str, Any]) -> Committed:
        """Return a client's word if it is its own, over this stage and over what it announced. Raises Refusal."""
        weight, given, model = word["weight"], word["root"], word["model"]
        if upload is None or given != upload.claim.root:
            raise Refusal(409, "incomplete", "This content was not announced for this round. Announce it first.", [])
        if not 1 <= weight < LARGEST_WEIGHT:
            raise Refusal(422, "malformed", f"A weight is a whole number from 1 to {LARGEST_WEIGHT - 1}.")
        if weight != 1 and self.job.purpose is Purpose.TRAIN and self.job.expected.algorithm.private:
            raise Refusal(422, "malformed", "Every client weighs 1 in a private run: more would escape the clip.")
        if weight != 1 and self.job.secure is not None:
            raise Refusal(422, "malformed", "A weight travels under the masks, or encrypted; beside that it is 1.")
        job, size = self.job, upload.claim.size
        lines = (self._run, job.round, job.purpose.value, client, job.model, given, size, weight)
        if model != job.model or not key.signed(decoded(word["signature"]), signed_text("update", *lines)):
            raise Refusal(403, "signature", "The signature is not this client's over this round, model and content.")
        return Committed(given, size, weight, word["signature"])

    def known(self, client: str, commit: Committed) -> Committed | None:
        """Return the same commit if it was made before: P-256 signs the same anew each time. Raises Refusal for another."""
        known = self.commits.get(client)
        if known is None:
            return None
        if (known.root, known.size, known.weight) != (commit.root, commit.size, commit.weight):
            raise conflict()
        return known

    def refused_leaves(self, client: str, upload: Upload, weight: int) -> tuple[str, ...]:
        """Return the leaves that cannot be added. Raises Refusal, FormatError for a file that is not an update."""
        job = self.job
        try:
            job.expected.check(upload.layout(job.expected.header_bytes))
            received = self._received(client, upload, weight)
            job.expected.check_metrics(received.metrics())
            if isinstance(job.secure, EncryptedRound):
                job.secure.examine(client, received)
            verdicts = received.verdicts(job.expected)
        except FileNotFoundError as error:
            raise Refusal(409, "conflict", "Another update was announced while this one was checked.") from error
        except FormatError:
            upload.have.clear()
            raise
        return tuple(name for name, good in verdicts.items() if not good)

    def result(self, settle: Settle) -> Settled:
        """Return the stage, over, with its updates in the order of the members.

        Where noise is added to their sum, they are on the disk: a power cut that lost some, when the model had been shown
        already, would make it another sum under the same noise, and the difference of the two has none. And where they are
        encrypted: the key holder decrypts no other sum of a round than it has.
        """
        noisy = any(isinstance(step, CentralMechanism) for step in self.job.expected.algorithm.channel)
        if isinstance(self.job.secure, EncryptedRound) or (noisy and self.job.purpose is Purpose.TRAIN):
            for client in settle.clients:
                self.uploads[client].sync()
        received = [self._received(c, self.uploads[c], self.commits[c].weight) for c in settle.clients]
        received.sort(key=lambda part: part.client)
        return Settled(tuple(received), dict(self.commits), settle.lost, self.asked, self.void)

    def _received(self, client: str, upload: Upload, weight: int) -> Received:
        key = partial(self.job.key, client)  # found when it is needed, which is seldom
        return Received(self._members.position(client), upload, weight, key, self.job.cohort)


def conflict() -> Refusal:
    """Return the refusal of a second update."""
    return Refusal(409, "conflict", "Another update was committed for this round. It counts, not this one.")


def refuse_what_cannot_be_added(commit: Committed) -> None:
    """Raise Refusal for an update that is kept and does not count."""
    if commit.refused:
        raise Refusal(
            422,
            "refused",
            f"The update cannot be added: {', '.join(commit.refused[:3])} is not finite or too large. The round goes on "
            "without it. Lower the learning rate, scale the inputs, or put Clip into the channel.",
        )
