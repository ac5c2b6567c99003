"""What every engine must hold to: the reference engine's answer, and no trace of chunks in its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from koinon import exact, tree
from koinon.aggregate.bucketed import Bucketed
from koinon.aggregate.mean import Mean
from koinon.aggregate.median import Median
from koinon.algorithms.fedavg import fedavg
from koinon.algorithms.fedprox import fedprox
from koinon.algorithms.fedsgd import fedsgd
from koinon.algorithms.scaffold import scaffold
from koinon.channel.clip import Clip
from koinon.channel.quantise import Quantise
from koinon.core.algorithm import Algorithm
from koinon.core.execution import Engine, Plan
from koinon.core.protocols import Aggregator, Model
from koinon.core.types import Job, Partial, Purpose
from koinon.data.dataset import FederatedDataset
from koinon.engines.reference import ReferenceEngine
from koinon.round.client import initial_state
from koinon.round.settle import grouped, merge
from koinon.round.stopping import Stop
from koinon.round.training import Done, Evaluation, FederatedTraining, State
from koinon.store.client_states import MemoryStates
from koinon.testing.comparison import columns, copied, near, same, same_partial
from koinon.testing.models import CentredRegression, SoftmaxRegression
from koinon.testing.samples import classified, measured
from koinon.tree import Tree
from koinon.work.optimizers import Adam, Momentum, Sgd

_DIVERGING = 3


@dataclass(frozen=True)
class Case:
    """One algorithm on one model; ``tolerance`` is relative to the largest number of the update."""

    algorithm: Algorithm
    model: Model
    data: FederatedDataset
    tolerance: float


def portfolio() -> tuple[Case, ...]:
    """Return the algorithms and models that every engine is held to."""
    labels, targets = classified(), measured()
    softmax, centred = SoftmaxRegression(), CentredRegression()
    quantised = (Clip(0.1), Quantise())
    return (
        Case(fedavg(Sgd(0.3), batch_size=4), softmax, labels, 1e-5),
        Case(fedavg(Sgd(0.3), batch_size=None, epochs=3), softmax, labels, 1e-5),
        Case(fedavg(Momentum(0.1, nesterov=True), batch_size=8, steps=5), softmax, labels, 1e-5),
        Case(fedavg(Adam(0.01), batch_size=8, epochs=2), softmax, labels, 1e-4),
        Case(fedprox(0.5, Sgd(0.1), batch_size=4), softmax, labels, 1e-5),
        Case(fedsgd(), softmax, labels, 1e-5),
        Case(scaffold(Sgd(0.1), batch_size=4, epochs=2), softmax, labels, 1e-5),
        Case(fedavg(Sgd(0.05), batch_size=4), centred, targets, 1e-5),
        # A number on the edge between two levels may fall to either side: one level of 127.
        Case(fedavg(Sgd(0.3), batch_size=4, channel=quantised), softmax, labels, 1e-2),
        Case(replace(fedavg(Sgd(0.3), batch_size=4), aggregator=Median()), softmax, labels, 1e-5),
        Case(replace(scaffold(Sgd(0.1), batch_size=4), aggregator=Bucketed(2)), softmax, labels, 1e-5),
    )


def check_engine(make: Callable[[], Engine], *, tolerance: float = 1.0) -> None:
    """Raise AssertionError unless engines of ``make`` compute what the reference engine computes.

    ``tolerance`` multiplies that of every case. Beyond that: chunks and their order never show in a bit, a client
    that diverges is refused by leaf and leaves no trace, a cohort may be empty, and judging is a job too.
    """
    engine = make()
    for case in portfolio():
        plan = Plan(case.algorithm, case.model, case.data, case.data.pooled("server"))
        for job, states, expected in _jobs(plan):
            what = f"{engine.name}, {case.algorithm.name}, {case.model!r}, round {job.round}, {job.purpose.value}"
            kept = copied(states)
            whole = engine.run(plan, job, states)
            same(states, kept, f"{what}: the states it was given")
            _check_near(whole, expected, case.tolerance * tolerance, what)
            _check_chunks(engine, plan, job, states, whole, what)
    for aggregator in (Mean(), Median(), Bucketed(3)):
        _check_divergence(engine, aggregator)
    _check_new_numbers(engine)
    _check_empty_cohort(engine)
    _check_empty_cohort(make())


def _jobs(plan: Plan) -> Iterator[tuple[Job, Tree, Partial]]:
    """Yield two rounds' jobs, the states that come with them and what the reference engine makes of them."""
    program, table, engine = FederatedTraining(plan, Stop(rounds=2), Evaluation(), 5), MemoryStates(), ReferenceEngine()
    state: State = program.init(tree.to_numpy(plan.model.init(program.initial_key())))
    while not isinstance(job := program.next(state, 0.0), Done):
        states = table.read(job.tasks.clients, tree.to_numpy(initial_state(plan.algorithm, job.broadcast)))
        partial = engine.run(plan, job, states)
        yield job, states, partial
        if tree.leaves(partial.states):
            table.stage(job.tasks.clients, partial.states)
        state = program.absorb(state, partial)
        while state.phase is not Purpose.TRAIN:
            judged = program.judge(state)
            partial = engine.run(plan, judged, {})
            yield judged, {}, partial
            state = program.absorb(state, partial)


def _check_near(found: Partial, expected: Partial, tolerance: float, what: str) -> None:
    assert np.array_equal(found.weight, expected.weight), f"{what}: weight {found.weight}, not {expected.weight}"
    same(found.rows.clients, expected.rows.clients, f"{what}: the clients of the rows")
    same(found.rows.weights, expected.rows.weights, f"{what}: the weights of the rows")
    same(found.rows.accepted, expected.rows.accepted, f"{what}: the verdicts")
    assert found.rows.leaves == expected.rows.leaves, f"{what}: the leaves are {found.rows.leaves}"
    assert all(leaf.dtype == np.int64 for leaf in tree.leaves(found.total)), f"{what}: a total is int64"
    assert all(leaf.dtype == np.float32 for leaf in tree.leaves(found.each)), f"{what}: an update is float32"
    near(found.each, expected.each, tolerance, f"{what}: the single updates")
    if weight := int(np.sum(expected.weight)):
        mean, wanted = (exact.mean(partial.total, weight) for partial in (found, expected))
        near(mean, wanted, tolerance, f"{what}: the mean update")
    near(columns(found.rows)["metrics"], columns(expected.rows)["metrics"], 1e-4, f"{what}: the metric sums")
    near(tree.to_numpy(found.states), tree.to_numpy(expected.states), tolerance, f"{what}: the client states")


def _check_chunks(engine: Engine, plan: Plan, job: Job, states: Tree, whole: Partial, what: str) -> None:
    places, job = np.arange(len(job.tasks)), _grouped(plan, job)
    for size in (1, 3, len(places)):
        chunks = [places[i : i + size] for i in range(0, len(places), size)]
        parts = {
            i: engine.run(plan, job.chunk(chunks[i]), _rows(states, chunks[i])) for i in reversed(range(len(chunks)))
        }
        same_partial(
            merge([parts[i] for i in range(len(chunks))]), whole, f"{what}, in chunks of {size}, last one first"
        )
    turned = places[::-1]
    reverse = engine.run(plan, job.chunk(turned), _rows(states, turned))
    same(reverse.total, whole.total, f"{what}, clients in reverse")
    same(_rows(reverse.each, turned), whole.each, f"{what}, single updates of clients in reverse")


def _grouped(plan: Plan, job: Job) -> Job:
    """Return the job as a runtime would before it cuts it."""
    return grouped(plan.algorithm.aggregator, job) if job.purpose is Purpose.TRAIN else job


def _rows(states: Tree, chosen: np.ndarray) -> Tree:
    return tree.map(lambda table: np.asarray(table)[chosen], states) if tree.leaves(states) else states


def _check_divergence(engine: Engine, aggregator: Aggregator) -> None:
    algorithm = replace(scaffold(Sgd(0.3), batch_size=4), aggregator=aggregator)
    plan = Plan(algorithm, CentredRegression(), measured(diverging=_DIVERGING))
    job, states, _ = next(_jobs(plan))
    job = _grouped(plan, job)
    partial = engine.run(plan, job, states)
    refused = partial.rows.refused()
    assert list(refused) == [_DIVERGING], f"{engine.name} refused clients {list(refused)} and not {_DIVERGING} alone"
    assert refused[_DIVERGING], f"{engine.name} must say which leaves a client was refused for"
    others = np.array([place for place, client in enumerate(job.tasks.clients) if client != _DIVERGING])
    without = engine.run(plan, job.chunk(others), _rows(states, others))
    same(partial.total, without.total, f"{engine.name}: the total with a refused client against that without it")
    assert np.array_equal(partial.weight, without.weight), f"{engine.name}: a refused client must weigh nothing"
    same(_rows(partial.each, others), without.each, f"{engine.name}: the updates with a refused client against without")
    place = int(np.nonzero(job.tasks.clients == _DIVERGING)[0][0])
    left = any(np.any(leaf) for leaf in tree.leaves(_rows(partial.each, np.array([place]))))
    assert not left, f"{engine.name}: a refused client must leave zeros in place of its update"
    old, new = (_rows(table, np.array([place])) for table in (states, partial.states))
    same(new, old, f"{engine.name}: the state of a refused client")


def _check_empty_cohort(engine: Engine) -> None:
    plan = Plan(scaffold(Sgd(0.1), batch_size=4), SoftmaxRegression(), classified())
    job, states, _ = next(_jobs(plan))
    nobody = engine.run(plan, replace(job.chunk(np.arange(0)), cohort=0), _rows(states, np.arange(0)))
    assert nobody.weight == 0, f"{engine.name}: an empty cohort weighs {nobody.weight}"
    assert len(nobody.rows) == 0, f"{engine.name}: an empty cohort has {len(nobody.rows)} rows"
    assert not any(np.any(leaf) for leaf in tree.leaves(nobody.total)), (
        f"{engine.name}: an empty cohort moves the model"
    )


def _check_new_numbers(engine: Engine) -> None:
    """The same engine asked again with another learning rate, model or data must not answer from memory."""
    first = Plan(fedavg(Sgd(0.3), batch_size=4), SoftmaxRegression(), classified())
    plans = [
        first,
        replace(first, algorithm=fedavg(Sgd(0.1), batch_size=4)),
        replace(first, algorithm=fedavg(Sgd(0.3), batch_size=5)),
        replace(first, data=classified().subset(["client-1", "client-5"])),
        first,
    ]
    for plan in plans:
        job, states, expected = next(_jobs(plan))
        _check_near(engine.run(plan, job, states), expected, 1e-5, f"{engine.name} after another plan")
