"""The compiled engine: chunks, order and capacity never show; sizes and learning rates never compile again."""

import gc
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import apps
import koinon as kn
from koinon import exact, tree
from koinon.core.algorithm import Algorithm
from koinon.core.execution import Plan
from koinon.core.types import Batch, Job, Partial, Purpose
from koinon.engines.jax import JaxEngine
from koinon.engines.reference import ReferenceEngine
from koinon.errors import ClientError, ModelError, UnsupportedError
from koinon.round.client import initial_state
from koinon.round.settle import merge
from koinon.round.training import Evaluation, FederatedTraining
from koinon.work.local import LocalTraining

CLIENTS = 12
MODEL = apps.model()  # one object, so that a program compiled for it serves several tests
ALGORITHMS = {
    "clip and int8": apps.algorithm(),
    "adam": kn.fedavg(kn.adam(0.05), epochs=2, batch_size=8),
    "momentum, fixed steps": kn.fedavg(kn.momentum(0.1), steps=7, batch_size=8),
    "all examples in one batch": kn.fedavg(kn.sgd(0.2), batch_size=None),
    "scaffold": kn.scaffold(kn.sgd(0.2), batch_size=8),
}


@pytest.fixture(scope="module")
def engine() -> JaxEngine:
    return JaxEngine()


def plan_of(algorithm: Algorithm, clients: Any = None, model: Any = None) -> Plan:
    data = kn.federate(apps.clients(CLIENTS) if clients is None else clients, holdout=0.2)
    return Plan(algorithm, MODEL if model is None else model, data)


def job_of(plan: Plan, number: int = 1) -> Job:
    """Return the job of a round on the model's first parameters."""
    program = FederatedTraining(plan, kn.Stop(), Evaluation(), 5)
    state = program.init(plan.model.init(program.initial_key()))
    job = program.next(replace(state, round=number - 1), 0.0)
    assert isinstance(job, Job)
    return job


def states_of(plan: Plan, job: Job) -> Any:
    """Return states unlike those of a first round, if the algorithm keeps any."""
    draw = np.random.default_rng(len(job.tasks))
    one = initial_state(plan.algorithm, job.broadcast)
    return tree.map(lambda x: draw.normal(scale=0.01, size=(len(job.tasks), *x.shape)).astype(np.float32), one)


def bits(partial: Partial) -> tuple[Any, ...]:
    """Return everything a chunk says, with clients in order."""
    order = np.argsort(partial.rows.clients)
    columns = [
        partial.rows.weights,
        partial.rows.accepted,
        *(partial.rows.metrics[n] for n in sorted(partial.rows.metrics)),
    ]
    kept = tree.digest(tree.map(lambda x: x[order], partial.states))
    return tree.digest(partial.total), partial.weight, kept, *(column[order].tolist() for column in columns)


def in_chunks(engine: Any, plan: Plan, job: Job, states: Any, chunks: list[np.ndarray]) -> Partial:
    return merge([engine.run(plan, job.chunk(chunk), tree.map(lambda x, c=chunk: x[c], states)) for chunk in chunks])


def program_of(engine: JaxEngine, purpose: Purpose = Purpose.TRAIN) -> Any:
    """Return the one program the engine has made for a purpose."""
    (program,) = (program for key, program in engine._programs.items() if key[2] is purpose)
    return program


@pytest.mark.parametrize("name", ALGORITHMS)
def test_chunks_and_order_do_not_show(engine: JaxEngine, name: str) -> None:
    plan = plan_of(ALGORITHMS[name])
    job = job_of(plan)
    states = states_of(plan, job)
    everybody = np.arange(CLIENTS)
    whole = bits(engine.run(plan, job, states))
    for size in (1, 2, 5):
        assert bits(in_chunks(engine, plan, job, states, np.array_split(everybody, -(-CLIENTS // size)))) == whole
    shuffled = np.random.default_rng(1).permutation(CLIENTS)
    assert bits(in_chunks(engine, plan, job, states, [shuffled])) == whole
    assert bits(in_chunks(engine, plan, job, states, [shuffled[:5], shuffled[5:]])) == whole


@pytest.mark.parametrize("name", ["clip and int8", "scaffold"])
def test_capacity_does_not_show(engine: JaxEngine, name: str) -> None:
    few = replace(ALGORITHMS[name], sampler=kn.Uniform(3))
    plan = plan_of(few)
    job = job_of(plan)
    states = states_of(plan, job)
    everybody = job_of(replace(plan, algorithm=ALGORITHMS[name]))
    engine.run(plan, everybody, states_of(plan, everybody))
    assert bits(engine.run(plan, job, states)) == bits(JaxEngine().run(plan, job, states))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_computes_what_the_reference_defines(engine: JaxEngine, name: str) -> None:
    plan = plan_of(ALGORITHMS[name])
    job = job_of(plan)
    states = states_of(plan, job)
    compiled, defined = engine.run(plan, job, states), ReferenceEngine().run(plan, job, states)
    np.testing.assert_array_equal(compiled.rows.weights, defined.rows.weights)
    assert compiled.rows.leaves == defined.rows.leaves
    # Stochastic rounding to int8 may fall the other way where the numbers differ in their last bit.
    slack = 2e-3 if plan.algorithm.channel else 2e-5
    for pair in zip(tree.leaves(compiled.total), tree.leaves(defined.total), strict=True):
        left, right = (np.asarray(total, np.float64) / (exact.SCALE * compiled.weight) for total in pair)
        np.testing.assert_allclose(left, right, atol=slack * max(np.abs(right).max(), 1e-3))
    for left, right in zip(tree.leaves(compiled.states), tree.leaves(defined.states), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    for metric, column in defined.rows.metrics.items():
        np.testing.assert_allclose(compiled.rows.metrics[metric], column, rtol=1e-4)


def test_judging_agrees_with_the_reference_and_no_chunk_shows(engine: JaxEngine) -> None:
    plan = plan_of(apps.algorithm())
    job = replace(job_of(plan), purpose=Purpose.EVALUATE)
    compiled, defined = engine.run(plan, job, {}), ReferenceEngine().run(plan, job, {})
    assert set(compiled.rows.metrics) == {"examples", "loss", "accuracy", "auc"}
    for name, column in defined.rows.metrics.items():
        np.testing.assert_allclose(compiled.rows.metrics[name], column, rtol=1e-5)
    assert bits(in_chunks(engine, plan, job, {}, [np.arange(7), np.arange(7, CLIENTS)])) == bits(compiled)


def test_another_cohort_is_not_another_program() -> None:
    """Ragged sizes, other clients and fewer of them are data: one trace, however many rounds."""
    sizes = np.clip(np.exp(np.random.default_rng(0).normal(3, 1, 40)), 5, 300).astype(int)
    draw = np.random.default_rng(1)
    clients = {
        f"c{i}": (draw.normal(size=(n, 5)).astype(np.float32), np.ones(n, np.float32)) for i, n in enumerate(sizes)
    }
    plan = plan_of(replace(apps.algorithm(), sampler=kn.Uniform(10)), clients)
    engine = JaxEngine()
    for number in range(1, 8):
        job = job_of(plan, number)
        engine.run(plan, job, {})
        engine.run(plan, job.chunk(np.arange(number)), {})
    assert program_of(engine)._loop._cache_size() == 1


def test_another_learning_rate_is_not_another_program() -> None:
    engine, digests = JaxEngine(), set()
    plan = plan_of(apps.algorithm())
    for rate in (0.3, 0.03):
        for norm in (1.0, 0.01):
            algorithm = kn.fedavg(kn.sgd(rate), epochs=2, batch_size=8, channel=(kn.Clip(norm), kn.Quantise()))
            other = replace(plan, algorithm=algorithm)
            digests.add(bits(engine.run(other, job_of(other), {}))[0])
    assert len(digests) == 4
    assert program_of(engine)._loop._cache_size() == 1


def test_a_schedule_is_not_another_program() -> None:
    plan = plan_of(kn.fedavg(kn.sgd(0.3), batch_size=8, schedule=kn.Exponential(0.5)))
    engine = JaxEngine()
    first, second = job_of(plan, 1), job_of(plan, 2)
    assert first.tasks.learning_rates[0] != second.tasks.learning_rates[0]
    engine.run(plan, first, {})
    engine.run(plan, second, {})
    assert program_of(engine)._loop._cache_size() == 1


@pytest.mark.parametrize("name", ["clip and int8", "scaffold"])
def test_a_client_that_diverges_leaves_the_round_as_if_it_had_not_come(engine: JaxEngine, name: str) -> None:
    plan = plan_of(replace(ALGORITHMS[name], channel=()))  # clipping would make the second one acceptable
    bad = np.array([3, 7])
    (nan, huge), _ = plan.data.span(bad, held_out=False)
    plan.data.x[plan.data.order()[nan], 2] = np.nan
    plan.data.y[plan.data.order()[huge]] = 1e30
    job = job_of(plan)
    states = states_of(plan, job)
    total = engine.run(plan, job, states)
    without = in_chunks(engine, plan, job, states, [np.delete(np.arange(CLIENTS), bad)])
    assert sorted(total.rows.refused()) == bad.tolist()
    assert set(ReferenceEngine().run(plan, job, states).rows.refused()) == set(total.rows.refused())
    assert tree.digest(total.total) == tree.digest(without.total)
    assert total.weight == without.weight
    assert total.rows.weights[bad].tolist() == [0, 0]
    for old, new in zip(tree.leaves(states), tree.leaves(total.states), strict=True):
        np.testing.assert_array_equal(new[bad], old[bad])


def convolution(params: Any, x: Any) -> Any:
    image = x.reshape(-1, 1, 5)
    seen = jax.lax.conv_general_dilated(image, params["kernel"], (1,), "SAME")
    return jnp.tanh(seen).sum(axis=(1, 2))


def convolutional() -> kn.FunctionModel:
    def init(key: Any) -> Any:
        return {"kernel": jax.random.normal(key, (2, 1, 3))}

    def loss(params: Any, x: Any, y: Any) -> Any:
        return (convolution(params, x) - y) ** 2

    return kn.FunctionModel(init, loss)


@pytest.mark.parametrize("name", ["clip and int8", "scaffold"])
def test_convolutions_run_step_by_step_to_the_bits_of_no_chunk(name: str) -> None:
    plan = plan_of(ALGORITHMS[name], model=convolutional())
    job, engine = job_of(plan), JaxEngine()
    states = states_of(plan, job)
    whole = engine.run(plan, job, states)
    assert program_of(engine)._stepwise is True
    for chunks in ([np.arange(5), np.arange(5, CLIENTS)], [np.arange(CLIENTS)[::-1]]):
        assert bits(in_chunks(engine, plan, job, states, chunks)) == bits(whole)
    defined = ReferenceEngine().run(plan, job, states)
    for pair in zip(tree.leaves(whole.total), tree.leaves(defined.total), strict=True):
        left, right = (np.asarray(total, np.float64) for total in pair)
        np.testing.assert_allclose(left, right, atol=2e-3 * np.abs(right).max())


def test_64_bits_are_in_the_sum_alone() -> None:
    plan = plan_of(apps.algorithm())
    job, engine = job_of(plan), JaxEngine()
    engine.run(plan, job, {})
    program, seen = program_of(engine), []
    assert program._stepwise is False, "a model without convolutions is one program"
    compiled, program._loop = program._loop, lambda *given: seen.append(given) or compiled(*given)
    engine.run(plan, job, {})
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(program._cohort)(*seen[0])
    wide = [(equation, value) for equation, value in values(jaxpr.jaxpr) if value.dtype.itemsize == 8]
    leaves = {np.shape(leaf) for leaf in tree.leaves(job.broadcast)}
    assert wide, "the sum itself is in 64 bits"
    for equation, value in wide:
        assert value.dtype == np.int64, f"{equation.primitive} computes in {value.dtype}"
        assert value.shape in leaves, f"{equation.primitive} makes int64{list(value.shape)}, which is no total"
    training = [body for body in loops(jaxpr.jaxpr) if not any(True for _ in loops(body))]
    assert training, "the loop over batches"
    for body in training:
        assert all(value.dtype.itemsize < 8 for _, value in values(body))


def values(jaxpr: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every equation and each array it makes, at any depth."""
    for equation in jaxpr.eqns:
        yield from ((equation, out.aval) for out in equation.outvars if hasattr(out.aval, "dtype"))
        for inner in bodies(equation):
            yield from values(inner)


def loops(jaxpr: Any) -> Iterator[Any]:
    """Yield the body of every loop, outer ones first."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation.params["body_jaxpr"].jaxpr
        for inner in bodies(equation):
            yield from loops(inner)


def bodies(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        body = getattr(value, "jaxpr", value)
        if hasattr(body, "eqns"):
            yield body


def test_nothing_global_is_changed(engine: JaxEngine) -> None:
    before = jax.config.values.copy()
    plan = plan_of(apps.algorithm())
    engine.run(plan, job_of(plan), {})
    assert jax.config.values == before
    assert jnp.arange(3).dtype == jnp.int32


def test_batches_cut_ahead_are_those_cut_in_time(engine: JaxEngine) -> None:
    plan = plan_of(apps.algorithm())
    program = FederatedTraining(plan, kn.Stop(), Evaluation(), 5)
    state = program.init(plan.model.init(program.initial_key()))
    first = program.next(state, 0.0)
    assert isinstance(first, Job)
    assert first.following is not None
    engine.run(plan, first, {})
    second = program.next(replace(state, round=1), 0.0)
    assert isinstance(second, Job)
    assert engine._ahead is not None
    assert engine._ahead[0] is second.tasks
    assert bits(engine.run(plan, second, {})) == bits(engine.run(plan, replace(second, tasks=copy(second.tasks)), {}))


def test_data_that_nobody_uses_any_more_is_let_go() -> None:
    engine = JaxEngine()
    plan = plan_of(kn.fedavg(batch_size=8))
    part = replace(plan, data=plan.data.subset(plan.data.names[:3]))
    job = replace(job_of(part), following=None)
    engine.run(plan, job, {})
    engine.run(part, job, {})
    assert len(engine._resident) == 2
    del part
    gc.collect()
    assert len(engine._resident) == 1
    del plan
    gc.collect()
    assert not engine._resident
    assert not engine._arrays


def test_nobody_came() -> None:
    plan = plan_of(apps.algorithm())
    job = job_of(plan)
    empty = JaxEngine().run(plan, replace(job, tasks=job.tasks.take(np.array([], int)), cohort=0, following=None), {})
    assert empty.weight == 0
    assert len(empty.rows) == 0
    assert not any(leaf.any() for leaf in tree.leaves(empty.total))


@dataclass(frozen=True, kw_only=True)
class Widening(LocalTraining):
    """A work whose step returns another type than it took."""

    def step(self, model: Any, carry: Any, batch: Batch) -> Any:
        after, metrics = super().step(model, carry, batch)
        return {**after, "rate": jnp.int32(1)}, metrics


def test_a_step_that_changes_its_carry_is_named() -> None:
    plan = plan_of(replace(apps.algorithm(), work=Widening(batch_size=8)))
    with pytest.raises(ModelError, match=r"\['rate'\] was float32\[\] and became int32\[\]"):
        JaxEngine().run(plan, job_of(plan), {})


def test_a_loop_in_python_is_not_compiled() -> None:
    plan = plan_of(apps.algorithm(), model=replace(MODEL, compiled=False))
    with pytest.raises(UnsupportedError, match="engine='reference'"):
        JaxEngine().run(plan, job_of(plan), {})


def test_a_loss_that_does_not_fit_the_data_says_whose_data_and_of_what_shape() -> None:
    model = kn.FunctionModel(lambda key: {"w": jnp.zeros(3)}, lambda params, x, y: (x @ params["w"] - y) ** 2, None, ())
    narrow = {"paris": (np.ones((4, 2), np.float32), np.ones(4, np.float32))}
    with pytest.raises(
        ClientError, match=r"loss cannot be computed on examples of 'paris', with float32\[2\] as x"
    ) as found:
        kn.fit(model, narrow, stop=kn.Stop(rounds=1), progress=False)
    assert isinstance(found.value.__cause__, TypeError)
