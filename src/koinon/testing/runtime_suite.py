"""What every runtime must hold to: the bits of its engine over the whole cohort, wherever chunks are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from koinon import tree
from koinon.aggregate.bucketed import Bucketed
from koinon.aggregate.median import Median
from koinon.algorithms.fedavg import fedavg
from koinon.algorithms.scaffold import scaffold
from koinon.channel.clip import Clip
from koinon.channel.quantise import Quantise
from koinon.core.execution import Engine, Plan, Runtime
from koinon.core.types import Batch, Metrics, Purpose, Variables
from koinon.engines.catalogue import engine as new_engine
from koinon.errors import KoinonError
from koinon.round.client import initial_state
from koinon.round.stopping import Stop
from koinon.round.training import Done, Evaluation, FederatedTraining, State
from koinon.store.client_states import MemoryStates
from koinon.testing.comparison import same, same_partial
from koinon.testing.models import CentredRegression, SoftmaxRegression
from koinon.testing.samples import classified, measured
from koinon.tree import Tree
from koinon.work.optimizers import Adam, Sgd


def check_runtime(make: Callable[[], Runtime]) -> None:
    """Raise AssertionError unless runtimes of ``make`` give the bits of their engine, and close in peace.

    A failure on a client must come back as a KoinonError, and the runtime must go on after it. The process that
    calls this must compute with one thread (``NPROC=1`` before JAX starts): a second one changes bits.
    """
    quantised = (Clip(0.5), Quantise())
    plans = [
        Plan(fedavg(Adam(0.01), batch_size=4, channel=quantised), SoftmaxRegression(), classified()),
        Plan(scaffold(Sgd(0.1), batch_size=4), CentredRegression(), measured(), measured().pooled("server")),
        Plan(replace(fedavg(Sgd(0.1), batch_size=4), aggregator=Median()), SoftmaxRegression(), classified()),
        Plan(replace(fedavg(Sgd(0.1), batch_size=4), aggregator=Bucketed(2)), SoftmaxRegression(), classified()),
    ]
    runtime = make()
    manager: Any = runtime
    with manager as entered:
        assert entered is runtime, f"{type(runtime).__name__}.__enter__ must return the runtime"
        engine = new_engine(runtime.engine)
        for plan in plans:
            _check_rounds(runtime, engine, plan)
        _check_failure(runtime, plans[0])
        _check_rounds(runtime, engine, plans[0])
    runtime.close()


def _check_rounds(runtime: Runtime, engine: Engine, plan: Plan) -> None:
    """Two rounds and their evaluations, each over the runtime and over the engine at once."""
    program, table = FederatedTraining(plan, Stop(rounds=2), Evaluation(), 5), MemoryStates()
    variables = runtime.initial(plan, program.initial_key())
    same(variables, tree.to_numpy(plan.model.init(program.initial_key())), "the first variables")
    state: State = program.init(variables)
    what = f"{type(runtime).__name__}, {plan.algorithm.name}"
    while not isinstance(job := program.next(state, 0.0), Done):
        states: Tree = table.read(job.tasks.clients, tree.to_numpy(initial_state(plan.algorithm, job.broadcast)))
        partial = runtime.round(plan, job, states)
        same_partial(partial, engine.run(plan, job, states), f"{what}, round {job.round}")
        if tree.leaves(partial.states):
            table.stage(job.tasks.clients, partial.states)
        state = program.absorb(state, partial)
        while state.phase is not Purpose.TRAIN:
            judged = program.judge(state)
            partial = runtime.round(plan, judged, {})
            same_partial(partial, engine.run(plan, judged, {}), f"{what}, round {job.round}, {judged.purpose.value}")
            state = program.absorb(state, partial)


@dataclass(frozen=True)
class FailingModel(SoftmaxRegression):
    """A model whose gradient cannot be taken."""

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        """Raise the KoinonError that a user's own check would."""
        raise KoinonError("this model cannot be trained")


def _check_failure(runtime: Runtime, plan: Plan) -> None:
    broken: Any = Plan(plan.algorithm, FailingModel(), plan.data)
    program = FederatedTraining(broken, Stop(rounds=1), Evaluation(), 5)
    state = program.init(broken.model.init(program.initial_key()))
    job = program.next(state, 0.0)
    assert not isinstance(job, Done)
    try:
        runtime.round(broken, job, tree.map(np.asarray, initial_state(broken.algorithm, job.broadcast)))
    except KoinonError as error:
        assert "this model cannot be trained" in str(error), f"{type(runtime).__name__} lost what failed: {error}"
    else:
        raise AssertionError(f"{type(runtime).__name__} hid the failure of a client")
