"""The driver: ask the program for a job, run it, absorb it, commit, tell. The clock is an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon import tree
from koinon.core.events import Checkpoint, Journal, Listener, RoundFinished, RoundRecord, RunFinished, RunStarted
from koinon.core.execution import Runtime
from koinon.core.protocols import ClientStates
from koinon.core.types import Job, Purpose
from koinon.errors import DivergedError
from koinon.round.client import initial_state
from koinon.round.stopping import Stop, Watch
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


def drive(program: FederatedTraining, around: Surroundings, past: Outcome | None = None) -> Outcome:
    """Run ``program`` until it is done, from the start or from where an earlier process left it.

    Every round is committed before the next begins. A round of which every client was refused ends the run.
    """
    program.plan.algorithm.check(around.runtime.offers)
    if past is None:
        first = program.init(around.runtime.initial(program.plan, program.initial_key()))
        past = Outcome(first, "", ())
        del first
        around.journal.commit(checkpoint(past.state, None))
    state, records = past.state, list(past.history)
    del past  # a large model's first state is not to outlive its round
    around.listen(RunStarted(program.plan.algorithm.name, len(program.plan.data), program.stop.rounds, state.round))
    spent = sum(record.seconds for record in records)
    while not isinstance(step := program.next(state, spent), Done):
        try:
            state, record = _round(program, around, state, step)
        except DivergedError as error:
            step = Done(f"diverged: {error}")
            break
        spent += record.seconds
        records.append(record)
        around.listen(RoundFinished(record))
    digest = tree.digest(program.plan.algorithm.server.variables(state.server)["params"])
    around.listen(RunFinished(step.reason, state.round, digest))
    return Outcome(state, step.reason, tuple(records))


def resumed(saved: Checkpoint, history: tuple[RoundRecord, ...], stop: Stop) -> Outcome:
    """Return where a run stands that was written down, perhaps to go on under another ``stop``."""
    figures = {} if saved.record is None else dict(saved.record.figures)
    watch = Watch(**saved.watch).again(stop, figures)
    judged = {name: dict(own) for name, own in saved.judged.items()}
    return Outcome(State(saved.round, saved.server, watch, saved.best, judged=judged), "", history)


def checkpoint(state: State, record: RoundRecord | None, clients: Any = None, states: Tree | None = None) -> Checkpoint:
    """Return what is written down of a finished round."""
    watch = state.watch.to_json()
    return Checkpoint(state.round, state.server, watch, state.best, record, state.judged, clients, states or {})


def _round(program: FederatedTraining, around: Surroundings, state: State, train: Job) -> tuple[State, RoundRecord]:
    """Train, judge and commit one round; return the state after it and its record."""
    began = around.clock()
    partial = around.runtime.round(program.plan, train, _client_states(program, around, train))
    clients, states = (train.tasks.clients, partial.states) if tree.leaves(partial.states) else (None, {})
    state = program.absorb(state, partial)
    while state.phase is not Purpose.TRAIN:
        state = program.absorb(state, around.runtime.round(program.plan, program.judge(state), {}))
    record = program.record(state, around.clock() - began)
    around.journal.commit(checkpoint(state, record, clients, states))
    if clients is not None:
        around.states.stage(clients, states)
    return state, record


def _client_states(program: FederatedTraining, around: Surroundings, job: Job) -> Tree:
    initial = tree.map(np.asarray, initial_state(program.plan.algorithm, job.broadcast))
    return around.states.read(job.tasks.clients, initial)
