"""The driver: ask the program for a job, run it, absorb it, commit, tell. The clock is an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon import tree
from koinon.core.events import Checkpoint, Journal, Listener, RoundFinished, RoundRecord, RunFinished, RunStarted
from koinon.core.protocols import ClientStates, Runtime
from koinon.core.types import Job, Partial, Purpose
from koinon.round.client import initial_state
from koinon.round.training import Done, FederatedTraining, State
from koinon.tree import Tree


@dataclass(frozen=True)
class Surroundings:
    """What the driver works with and does not own."""

    runtime: Runtime
    journal: Journal
    states: ClientStates
    listen: Listener
    clock: Callable[[], float]  # seconds, monotonic


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    state: State
    stopped: str
    history: tuple[RoundRecord, ...]


def drive(
    program: FederatedTraining, around: Surroundings, state: State, history: tuple[RoundRecord, ...] = ()
) -> Outcome:
    """Run ``program`` from ``state`` until it is done; every round is committed before the next begins."""
    plan = program.plan
    plan.algorithm.check(around.runtime.offers)
    around.listen(RunStarted(plan.algorithm.name, len(plan.data), program.stop.rounds, state.round))
    if not history:
        around.journal.commit(checkpoint(state, None))
    records, spent = list(history), sum(record.seconds for record in history)
    changed: tuple[Any, Tree] = (None, {})
    began = around.clock()
    while not isinstance(job := program.next(state, spent), Done):
        partial = _run(program, around, job)
        if job.purpose is Purpose.TRAIN:
            changed = (job.tasks.clients, partial.states) if tree.leaves(partial.states) else (None, {})
        state = program.absorb(state, partial)
        if state.phase is Purpose.TRAIN:
            now = around.clock()
            record = program.record(state, now - began)
            began, spent = now, spent + record.seconds
            around.journal.commit(checkpoint(state, record, *changed))
            if changed[0] is not None:
                around.states.stage(*changed)
            records.append(record)
            around.listen(RoundFinished(record))
    digest = tree.digest(program.plan.algorithm.server.variables(state.server))
    around.listen(RunFinished(job.reason, state.round, digest))
    return Outcome(state, job.reason, tuple(records))


def checkpoint(state: State, record: RoundRecord | None, clients: Any = None, states: Tree | None = None) -> Checkpoint:
    """Return what is written down of a finished round."""
    return Checkpoint(state.round, state.server, state.watch.to_json(), state.best, record, clients, states or {})


def _run(program: FederatedTraining, around: Surroundings, job: Job) -> Partial:
    states: Tree = {}
    if job.purpose is Purpose.TRAIN:
        initial = tree.map(np.asarray, initial_state(program.plan.algorithm, job.broadcast))
        states = around.states.read(job.tasks.clients, initial)
    return around.runtime.round(program.plan, job, states)
