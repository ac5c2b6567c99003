"""The fleet as a runtime and a journal: the simulator's own driver runs a deployment, and does not know it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from koinon import exact, keys, tree
from koinon.aggregate.rooted import Rooted
from koinon.channel.secure_sum import secure_sum_of
from koinon.core.events import Checkpoint
from koinon.core.execution import Plan
from koinon.core.protocols import Aggregator, Needs
from koinon.core.types import Job, Partial, Purpose, Rows, Variables
from koinon.errors import CompositionError
from koinon.fleet.coordinator import replies
from koinon.fleet.coordinator.chain import Models, ReceiptChain, Sum
from koinon.fleet.coordinator.encrypted import EncryptedRound, encrypted_round, show
from koinon.fleet.coordinator.ledger import RoundRow
from koinon.fleet.coordinator.payload import Expected, Received, total
from koinon.fleet.coordinator.run import FleetRun
from koinon.fleet.coordinator.secure_sum import Office, SecureRound
from koinon.fleet.coordinator.stage import Settled, StageJob
from koinon.fleet.coordinator.total_digest import TotalDigest
from koinon.fleet.wire.abilities import OFFERS
from koinon.privacy.hiding import hiding
from koinon.privacy.secure_sum.layout import Total
from koinon.privacy.secure_sum.roster import Roster
from koinon.privacy.secure_sum.server import unmask
from koinon.privacy.secure_sum.terms import NO_ROSTER, Terms
from koinon.round.driver import Outcome, resumed
from koinon.round.evaluation import EVALUATION
from koinon.round.masked import Encoding, summed, terms_of, unflat_figures
from koinon.round.settle import Room, grouped, partial_of
from koinon.round.stopping import Stop
from koinon.round.training import FederatedTraining
from koinon.store.blobs import Blobs
from koinon.tree import Array, Tree

OpenOffice: TypeAlias = Callable[[int, Purpose], Office]
"""Returns where the messages of a round's stage are left."""


class FleetRuntime:
    """Asks the fleet for a round and adds up what comes. Implements Runtime, Journal and ClientStates."""

    offers = OFFERS

    def __init__(
        self, run: FleetRun, training: FederatedTraining, engine: str, chain: ReceiptChain, office: OpenOffice
    ) -> None:
        self.engine = engine
        self._run, self._training, self._chain, self._office = run, training, chain, office
        self._written = _Written(run.ledger.blobs)
        self._expected: dict[Purpose, Expected] = {}
        self._stages: dict[Purpose, tuple[StageJob, Settled]] = {}  # of the round that is open
        self._hashing = ThreadPoolExecutor(1)
        self._sums = TotalDigest(self._hashing)
        self._later = ThreadPoolExecutor(1)
        self._last = ""  # the blob of the server's state before this round
        self._first = 0  # the round that this process begins with: an earlier one may have begun it
        self._shown: frozenset[str] = frozenset()  # the key holders' public keys, as blobs

    # Runtime

    def initial(self, plan: Plan, key: Array) -> Variables:
        """Return the model's first variables, when enough clients are here."""
        self._run.wait_for_members()
        variables: Variables = tree.to_numpy(plan.model.init(key))
        return variables

    def round(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Return the exact total of those who answered, one row each, and why the others did not."""
        blob = self._written(job.broadcast)
        job = self._as_begun(plan, job, blob)
        members = self._run.members
        size = self._run.ledger.blobs.path(blob).stat().st_size
        train = job.purpose is Purpose.TRAIN
        aggregator = plan.algorithm.aggregator
        least = _least(aggregator) if train and job.cohort else 1
        cohort = max(job.cohort, least)  # others take part where a draw is too small for the aggregator
        newcomers = train and not self._private  # who is drawn is what is accounted
        secure = self._secure(plan, job, cohort, blob)
        expected = self._expect(plan, job) if secure is None else self._expect_hidden(plan, secure)
        essential = (self._run.wait_for_named(aggregator.trusted),) if train and isinstance(aggregator, Rooted) else ()
        if secure is not None:  # masks know who is asked; and a draw of too few is void, as in simulation
            least = secure.minimum
            newcomers = newcomers and isinstance(secure, EncryptedRound) and job.cohort >= least
        facts = (job.round, job.purpose, blob, size, cohort, partial(self._key, job.round), expected, least, newcomers)
        stage = StageJob(*facts, job.round == self._first, essential, secure)
        draw = [members[i].client for i in job.tasks.clients.tolist()]
        if job.following is not None:  # drawn while the clients work
            self._later.submit(job.following)
        reserve = [] if stage.closed and isinstance(secure, EncryptedRound) else self._reserve(job, set(draw))
        settled, found = self._settled(stage, draw, reserve)
        self._stages[job.purpose] = stage, settled
        leaves = tree.names(job.broadcast) if job.purpose is Purpose.TRAIN else ()
        rows = replies.rows(settled, members, leaves)
        if settled.void is not None:
            self._sums = TotalDigest(self._hashing)
            return Partial({}, 0, replace(rows, metrics={}, pooled={}, void=settled.void))
        if job.purpose is Purpose.TRAIN:
            self._sums = TotalDigest(self._hashing)
            if aggregator.needs is not Needs.SUM:
                return self._apart(plan, job, settled.received, rows)
        if secure is not None:
            assert found is not None, "a stage without its sum is void"
            return self._hidden(job, _scale(secure), found, rows)
        accepted = [part for part, weight in zip(settled.received, rows.weights, strict=True) if weight]
        summed = total(expected, accepted, self._sums)
        return Partial(summed, sum(part.weight for part in accepted), rows)

    def _as_begun(self, plan: Plan, job: Job, blob: str) -> Job:
        """Return the job with the clients that an earlier process drew.

        Others may have joined since, and what hides the updates was agreed on for so many.
        """
        self._first = self._first or job.round
        row = None
        if self._first == job.round and hiding(plan.algorithm) is not None:
            row = self._run.ledger.stage(job.round, job.purpose)
        if row is None or row.model != blob or not row.drawn:
            return job
        drawn = np.array([self._run.members.position(client) for client in row.drawn], np.int64)
        tasks = self._training.tasks_of(plan.data, drawn, job.round)
        return replace(job, cohort=len(tasks), tasks=tasks)

    def _apart(self, plan: Plan, job: Job, received: Sequence[Received], rows: Rows) -> Partial:
        """Return each update, or the sums of groups, for an aggregator that needs them: all of it in memory."""
        aggregator, expected = plan.algorithm.aggregator, self._expect(plan, job)
        tasks = self._training.tasks_of(plan.data, rows.clients, job.round)  # of those who answered, whoever was drawn
        job = grouped(aggregator, replace(job, cohort=len(tasks), tasks=tasks))
        room = Room(aggregator, job, job.broadcast)
        for place, (part, weight) in enumerate(zip(received, rows.weights, strict=True)):
            if weight:
                room.absorb(place, part.value(expected), part.weight)
        return partial_of(aggregator, job, room.kept, rows, {})

    def _settled(self, stage: StageJob, draw: Sequence[str], reserve: Sequence[str]) -> tuple[Settled, Total | None]:
        """Return a stage that is over and, if its updates are hidden, their sum: nothing else is over without it but the void."""
        secure, run = stage.secure, self._run
        if isinstance(secure, SecureRound):
            return self._unmasked(secure, run.settled(stage, self._living(stage, draw, reserve), []))
        while True:
            settled = run.settled(stage, draw, reserve)
            if secure is None or settled.void is not None:
                return settled, None
            clients = {run.members[part.client].client for part in settled.received}
            found = secure.decrypted(settled.received, partial(self._any_revoked, clients), self._rest)
            if found is not None:
                return settled, found
            run.ledger.forget_stage(stage.round, stage.purpose)
            secure.begin_anew()

    def _living(self, stage: StageJob, draw: Sequence[str], reserve: Sequence[str]) -> Sequence[str]:
        """Return a draw with others in the place of the revoked, as long as nobody is asked yet and no privacy hangs on who is drawn."""
        if self._training.releases is not None or self._run.ledger.stage(stage.round, stage.purpose) is not None:
            return draw
        revoked = self._run.snapshot()[0].revoked
        others = (client for client in reserve if client not in revoked)
        return [next(others, client) if client in revoked else client for client in draw]

    def _any_revoked(self, clients: set[str]) -> bool:
        return bool(self._run.snapshot()[0].revoked & clients)

    def _secure(self, plan: Plan, job: Job, cohort: int, blob: str) -> SecureRound | EncryptedRound | None:
        """Return this stage's secure or encrypted sum, where the channel has one."""
        office = self._office(job.round, job.purpose)
        encrypted = encrypted_round(office, plan.algorithm, job, cohort, self._rest)
        if encrypted is not None:
            self._shown = show(encrypted.keys, self._run.ledger.blobs)
            return encrypted
        step = secure_sum_of(plan.algorithm)
        if step is None:
            return None
        known = {
            "value": job.broadcast,
            "cohort": job.cohort,
            "roster": _digest(office.roster),
            "model": bytes.fromhex(blob),
        }

        def terms(attempt: int) -> Terms:
            made = terms_of(plan.algorithm, self._run.key, job.round, job.purpose, attempt, **known)
            return replace(made, app=bytes.fromhex(self._chain.app))

        return SecureRound(office, terms, step.least, plan.algorithm.schedule.shortest)

    def _expect_hidden(self, plan: Plan, secure: SecureRound | EncryptedRound) -> Expected:
        if isinstance(secure, EncryptedRound):
            return Expected.of_encrypted(plan.algorithm, secure.round, plan.model.finish)
        return Expected.of_masked(plan.algorithm, secure.terms.layout, plan.model.finish)

    def _unmasked(self, secure: SecureRound, settled: Settled) -> tuple[Settled, Total | None]:
        """Return a stage and the sum of its vectors without its masks, all that is ever known of them; or the void stage."""

        def wait(step: str, silent: Sequence[str]) -> bool:
            nonlocal settled
            void = self._run.sealed(step, silent)
            settled = void or settled
            return void is None

        clients = [self._run.members[part.client].client for part in settled.received]
        server = None if settled.void is not None else secure.opened(clients, wait)
        if server is None:
            secure.shut()
            return settled, None
        self._run.unsealed()
        vector = secure.terms.layout.zero()
        for part in settled.received:
            vector += part.vector()
        unmask(server, vector)
        return settled, Encoding(self._training.plan.algorithm, secure.terms, server.known).total(vector)

    def _hidden(self, job: Job, scale: int, found: Total, rows: Rows) -> Partial:
        """Return what is known of a stage whose updates are hidden."""
        like = {name: column[0] for name, column in rows.metrics.items()}
        rows = replace(rows, metrics={}, pooled=unflat_figures(found.sums, like))
        if job.purpose is not Purpose.TRAIN:
            return Partial({}, found.weight, rows)
        value = summed(found, scale, job.broadcast)
        for name, leaf in tree.items(value):
            self._sums(name, 0, leaf.reshape(-1))
        return Partial(value, found.weight, rows)

    def _rest(self, what: str) -> None:
        """Wait a moment for somebody who is not of this fleet, and say so."""
        self._run.trouble.note(f"The run waits for {what}")
        self._run.rest(1.0)

    def _summed(self, round: int) -> Sum:
        door, roster = self._training.releases, self._office(round, Purpose.TRAIN).roster
        named = None if roster is None else roster.digest().hex()
        if door is None:
            return Sum(self._sums.result(), None, named)
        aggregate = None if door.central else self._sums.result()  # of the sum without noise it would tell something
        return Sum(aggregate, door.entry(round).line, named)

    @property
    def _private(self) -> bool:
        return self._training.releases is not None and self._training.releases.central

    def close(self) -> None:
        """Let what is written in the background finish."""
        self._hashing.shutdown()
        self._later.shutdown()

    # Journal

    def commit(self, checkpoint: Checkpoint) -> None:
        """Write a round down before the next is asked for; its model reaches the disk a little later."""
        self._sums.hand_over()
        server = self._training.plan.algorithm.server
        blob = self._written(checkpoint.server)
        best = self._written(checkpoint.best) if tree.leaves(checkpoint.best) else None
        after = Models(
            self._written(server.broadcast(checkpoint.server)), self._written(server.variables(checkpoint.server))
        )
        receipt = None
        if checkpoint.round:
            receipt = self._chain.next(checkpoint.round, self._stages, after, self._summed(checkpoint.round))
        ledger, outcomes = self._run.ledger, self._outcomes()
        ledger.commit(RoundRow(checkpoint, blob, best, receipt, outcomes))
        self._run.forget(checkpoint.round, outcomes)
        if checkpoint.record is not None:
            self._run.finished(checkpoint.record)
        self._stages = {}
        live = {blob, after.broadcast, after.variables} | ({best} if best else set())
        self._written.keep(live, live | {self._last} | self._shown)
        self._last = blob
        self._later.submit(self._run.clear, checkpoint.round)
        self._later.submit(ledger.blobs.sync, blob)
        self._later.submit(ledger.blobs.clear)

    def past(self, stop: Stop) -> Outcome | None:
        """Return where an earlier process left the run."""
        found = self._run.ledger.load()
        if found is None:
            return None
        saved, server, best = found
        self._last = server
        self._written.remember(saved.checkpoint.server, server)
        if best is not None:
            self._written.remember(saved.checkpoint.best, best)
        self._run.remember()
        self._run.learnt(saved.history)
        return resumed(saved.checkpoint, saved.history, stop)

    # ClientStates

    def read(self, clients: Array, initial: Tree) -> Tree:
        """Return nothing: what a client keeps is on its own disk."""
        return {}

    def stage(self, clients: Array, states: Tree) -> None:
        """Keep nothing."""

    def blob(self, value: Tree) -> str:
        """Return the name of a tree's blob, written if it is new."""
        return self._written(value)

    def _expect(self, plan: Plan, job: Job) -> Expected:
        if job.purpose not in self._expected:
            train = job.purpose is Purpose.TRAIN
            value = job.broadcast if train else {}
            self._expected[job.purpose] = Expected.of(plan.algorithm if train else EVALUATION, value, plan.model.finish)
        return self._expected[job.purpose]

    def _key(self, round: int, client: str) -> Array:
        position = np.array([self._run.members.position(client)])
        return self._training.tasks_of(self._training.plan.data, position, round).keys[0]

    def _reserve(self, job: Job, drawn: set[str]) -> list[str]:
        """Return everybody else in an order of chance that every restart draws alike."""
        others = [m.client for m in map(self._run.members.__getitem__, range(len(self._run.members)))]
        others = [client for client in others if client not in drawn]
        if job.purpose is not Purpose.TRAIN or not others or self._private:
            return []
        key = keys.fold(keys.root(self._training.seed), keys.Purpose.RESERVE.value, job.round)
        order = np.argsort(keys.bits(key, len(others)), kind="stable")
        return [others[i] for i in order.tolist()]

    def _outcomes(self) -> dict[str, bool]:
        """Return for everybody who sent an update whether it is in the sum.

        Who sent none keeps the outcome of an earlier round: it may not have heard of that yet.
        """
        if Purpose.TRAIN not in self._stages:
            return {}
        _, settled = self._stages[Purpose.TRAIN]
        made = {self._run.members[part.client].client for part in settled.received}
        return {c: c in made and not settled.commits[c].refused for c in settled.commits}


def _scale(secure: SecureRound | EncryptedRound) -> int:
    return secure.round.parameters.scale if isinstance(secure, EncryptedRound) else exact.FRACTION_BITS


def _digest(roster: Roster | None) -> bytes:
    return NO_ROSTER if roster is None else roster.digest()


_MANY = 1 << 24  # clients


def _least(aggregator: Aggregator) -> int:
    """Return how many updates an aggregator needs at least. A run does not begin with fewer clients."""
    return bisect_left(range(1, _MANY), True, key=partial(_enough, aggregator)) + 1


def _enough(aggregator: Aggregator, count: int) -> bool:
    try:
        aggregator.values(count)
    except CompositionError:
        return False
    return True


@dataclass(frozen=True)
class _Entry:
    names: tuple[str, ...]
    leaves: tuple[Array, ...]
    blob: str


class _Written:
    """Which trees have been written already: the same arrays are not hashed twice."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._known: list[_Entry] = []

    def __call__(self, value: Tree) -> str:
        """Return the blob of a tree."""
        names, leaves = tree.names(value), tuple(tree.leaves(value))
        for entry in self._known:
            if entry.names == names and all(a is b for a, b in zip(entry.leaves, leaves, strict=True)):
                return entry.blob
        return self.remember(value, self._blobs.write(value))

    def remember(self, value: Tree, blob: str) -> str:
        """Note that a tree is in a blob."""
        self._known.append(_Entry(tree.names(value), tuple(tree.leaves(value)), blob))
        return blob

    def keep(self, trees: set[str], files: set[str]) -> None:
        """Forget all other trees, and delete all other files."""
        self._known = [entry for entry in self._known if entry.blob in trees]
        self._blobs.set_aside(files - {""})
