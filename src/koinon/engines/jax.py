"""The whole cohort in one compiled program: gather, train, encode, check, add, client after client.

Sizes are data, never shapes: the number of clients, their batches and where these lie are traced, and the
arrays that hold them only grow. 64-bit mode is on around the exact sum alone; training stays float32.
A model with convolutions runs one compiled step at a time, because XLA's CPU convolutions lose their fast
path inside a loop. The plan is a rule of the model, so it is the same on every worker and after a restart.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np

from koinon import exact, tree
from koinon.core.algorithm import Algorithm
from koinon.core.execution import Plan
from koinon.core.protocols import Aggregator, Dataset, Model, Needs
from koinon.core.types import Batch, Job, Metrics, Partial, Payload, Purpose, Rows, Task, Tasks
from koinon.engines.padding import cohort_index, padded_states
from koinon.engines.record import join, split
from koinon.engines.reference import task_parts
from koinon.errors import ModelError, UnsupportedError
from koinon.round.batches import Batches, batch_size, cut, step_counts
from koinon.round.client import decode, dispatch, initial_state, step_key
from koinon.round.settle import grouped, kept_rows, partial_of
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class _Shapes:
    """What a client's round looks like, found without running it."""

    value: Tree
    metrics: Tree


class JaxEngine:
    """Computes a chunk of clients in one program (or one program a step, for convolutions)."""

    name = "jax"

    def __init__(self) -> None:
        self._programs: dict[Any, _Program] = {}
        self._resident: dict[int, dict[str, tuple[Tree, Tree]]] = {}
        self._arrays: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self._capacity: dict[Any, tuple[int, int]] = {}
        self._ahead: tuple[Tasks, Batches] | None = None

    def run(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Compute every task of the job."""
        algorithm, data = task_parts(plan, job)
        job = grouped(algorithm.aggregator, job)
        program, arguments = self._prepared(plan, job, states)
        out = program(*arguments, len(job.tasks))
        if job.following is not None:  # the program is still running: cut the next round's batches beside it
            tasks = job.following()
            self._ahead = tasks, cut(algorithm.work.passes(), data, job.purpose, tasks)
        total, columns, kept = jax.tree.map(np.asarray, out)
        return _partial(algorithm.aggregator, job, total, columns, kept, program.metrics)

    def send(self, plan: Plan, job: Job, states: Tree) -> tuple[Payload, Tree]:
        """Compute the one task of the job."""
        program, arguments = self._prepared(plan, job, states)
        value, weight, metrics, new = jax.tree.map(np.asarray, program.send(*arguments))
        return Payload(value, weight, metrics), tree.map(lambda x: x[None], new)

    def _prepared(
        self, plan: Plan, job: Job, states: Tree
    ) -> tuple[_Program, tuple[Tree, Tree, dict[str, Tree], dict[str, Array], Tree]]:
        """Return the job's program and its arguments."""
        algorithm, data = task_parts(plan, job)
        if not plan.model.compiled:
            raise UnsupportedError(
                f"{type(plan.model).__name__} runs Python code that cannot be compiled. Use engine='reference'."
            )
        skeleton, floats = split((algorithm.work, algorithm.channel))
        if not tree.leaves(states):
            states = initial_state(algorithm, job.broadcast)
            states = {} if tree.leaves(states) and not len(job.tasks) else states
        batches = self._cut(algorithm, data, job.purpose, job.tasks)
        one = (id(plan.model), skeleton, job.purpose)
        capacity = self._grow((*one, id(data)), algorithm, data, job, batches)
        rows = _capacity_rows(algorithm.aggregator, job, capacity[0])
        key = (*one, algorithm.aggregator.needs, rows)
        if key not in self._programs:
            self._programs[key] = _Program(algorithm, plan.model, rows)
        index = cohort_index(job, batches, capacity)
        return self._programs[key], (
            floats,
            job.broadcast,
            self._device(data),
            index,
            padded_states(states, capacity[0]),
        )

    def _cut(self, algorithm: Algorithm, data: Dataset, purpose: Purpose, tasks: Tasks) -> Batches:
        """Return the batches, which may have been cut already."""
        if self._ahead is not None and self._ahead[0].keys is tasks.keys:
            return self._ahead[1]
        return cut(algorithm.work.passes(), data, purpose, tasks)

    def _grow(self, key: Any, algorithm: Algorithm, data: Dataset, job: Job, batches: Batches) -> tuple[int, int]:
        """Return room for clients and batches: enough for any cohort of this size, never less than before."""
        clients, steps = self._capacity.get(key, (0, 0))
        if max(1, job.cohort) > clients:  # a cohort may be empty, an array of clients may not
            clients = min(1 << max(0, job.cohort - 1).bit_length(), len(data))
            passes = algorithm.work.passes()
            _, counts = data.span(np.arange(len(data)), held_out=job.purpose is Purpose.EVALUATE)
            each = step_counts(replace(passes, batch_size=batch_size(passes, counts)), counts)
            steps = max(1, int(np.partition(each, len(each) - clients)[len(each) - clients :].sum()))
        self._capacity[key] = (clients, max(steps, len(batches.rows)))
        return self._capacity[key]

    def _device(self, data: Dataset) -> dict[str, Tree]:
        """Return the examples on the device, put there once for as long as the dataset is in use."""
        if id(data) not in self._resident:
            parts = {"x": data.x, "y": data.y}  # the sources are kept beside the copies, so their ids stay their own
            self._resident[id(data)] = {name: (part, tree.map(self._put, part)) for name, part in parts.items()}
            weakref.finalize(data, self._resident.pop, id(data), None).atexit = False
        return {name: device for name, (_, device) in self._resident[id(data)].items()}

    def _put(self, array: Array) -> Any:
        """Return one array on the device; datasets that share it share its copy."""
        device = self._arrays.get(id(array))
        if device is None:
            device = self._arrays[id(array)] = jax.device_put(array)
        return device


class _Program:
    """The compiled functions of one algorithm skeleton and model."""

    def __init__(self, algorithm: Algorithm, model: Model, rows: int | None) -> None:
        self._algorithm, self._model, self._rows = algorithm, model, rows
        self._stepwise: bool | None = None
        self._shapes: _Shapes | None = None
        self._loop = jax.jit(self._cohort, donate_argnums=4)
        self._begin = jax.jit(self._begin_client)
        self._step = jax.jit(self._step_client)
        self._end = jax.jit(self._end_client, donate_argnums=5)
        self._sent = jax.jit(self._only_client)
        self._last = jax.jit(self._send_client)

    def __call__(
        self, floats: Tree, broadcast: Tree, data: Tree, index: dict[str, Array], states: Tree, count: int
    ) -> Any:
        """Return total, columns and states of a chunk, still being computed."""
        if self._shapes is None:
            self._look(floats, broadcast, data, index, states)
        with jax.enable_x64(True):
            if not self._stepwise:
                return self._loop(floats, broadcast, data, index, states)
            return self._by_steps(floats, broadcast, data, index, states, count)

    def send(self, floats: Tree, broadcast: Tree, data: Tree, index: dict[str, Array], states: Tree) -> Any:
        """Return payload, weight, metrics and state of the first client."""
        if self._shapes is None:
            self._look(floats, broadcast, data, index, states)
        if not self._stepwise:
            return self._sent(floats, broadcast, data, index, states)
        first = np.int32(0)
        carry = self._begin(floats, broadcast, index, first, states)
        for j in range(int(index["steps"][0])):
            carry = self._step(floats, carry, data, index, first, np.int32(index["starts"][0] + j), np.int32(j))
        return self._last(floats, broadcast, index, states, carry)

    def _only_client(self, floats: Tree, broadcast: Tree, data: Tree, index: dict[str, Array], states: Tree) -> Any:
        first = jnp.int32(0)

        def step(j: Array, carry: Any) -> Any:
            return self._step_client(floats, carry, data, index, first, index["starts"][0] + j, j)

        carry = self._begin_client(floats, broadcast, index, first, states)
        carry = jax.lax.fori_loop(jnp.int32(0), index["steps"][0], step, carry)
        return self._send_client(floats, broadcast, index, states, carry)

    def _send_client(self, floats: Tree, broadcast: Tree, index: dict[str, Array], states: Tree, carry: Any) -> Any:
        first = jnp.int32(0)
        state = tree.map(lambda x: x[0], states)
        sent, new = dispatch(self._traced(floats), _task(index, first), broadcast, state, *carry)
        return sent.value, sent.weight, dict(sent.metrics), new

    @property
    def metrics(self) -> Tree:
        """The shapes of the metric sums of a client."""
        assert self._shapes is not None, "the shapes are found before the first run"
        return self._shapes.metrics

    def _by_steps(
        self, floats: Tree, broadcast: Tree, data: Tree, index: dict[str, Array], states: Tree, count: int
    ) -> Any:
        starts, steps = index["starts"], index["steps"]
        room = self._room(index, jax.device_put(states))
        broadcast, index = jax.device_put((broadcast, index))
        for i in range(count):
            client = np.int32(i)
            carry = self._begin(floats, broadcast, index, client, room[2])
            for j in range(int(steps[i])):
                carry = self._step(floats, carry, data, index, client, np.int32(starts[i] + j), np.int32(j))
            room = self._end(floats, broadcast, index, client, carry, room)
        return room

    def _cohort(self, floats: Tree, broadcast: Tree, data: Tree, index: dict[str, Array], states: Tree) -> Any:
        def client(i: Array, room: Any) -> Any:
            def step(j: Array, carry: Any) -> Any:
                with jax.enable_x64(False):
                    return self._step_client(floats, carry, data, index, i, index["starts"][i] + j, j)

            with jax.enable_x64(False):
                carry = self._begin_client(floats, broadcast, index, i, room[2])  # the argument itself would be copied
            carry = jax.lax.fori_loop(jnp.int32(0), index["steps"][i], step, carry)
            return self._end_client(floats, broadcast, index, i, carry, room)

        return jax.lax.fori_loop(jnp.int32(0), index["count"], client, self._room(index, states))

    def _begin_client(self, floats: Tree, broadcast: Tree, index: dict[str, Array], i: Array, states: Tree) -> Any:
        with jax.enable_x64(False):
            algorithm = self._traced(floats)
            state = tree.map(lambda x: x[i], states)
            carry = algorithm.work.begin(_task(index, i), broadcast, state["work"])
            seen = {} if self._shapes is None else self._shapes.metrics
            zeros = tree.map(lambda s: jnp.zeros(s.shape, s.dtype), seen)
            return jax.tree.map(jnp.asarray, carry), zeros

    def _step_client(
        self, floats: Tree, carry: Any, data: Tree, index: dict[str, Array], i: Array, row: Array, j: Array
    ) -> Any:
        with jax.enable_x64(False):
            before, seen = carry
            after, metrics = self._traced(floats).work.step(self._model, before, _batch(data, index, i, row, j))
            _same_carry(before, after)
            return after, tree.add(seen, metrics) if tree.leaves(seen) else dict(metrics)

    def _end_client(
        self, floats: Tree, broadcast: Tree, index: dict[str, Array], i: Array, carry: Any, room: Any
    ) -> Any:
        room, columns, kept = room
        with jax.enable_x64(False):
            task = _task(index, i)
            state = tree.map(lambda x: x[i], kept)
            algorithm = self._traced(floats)
            sent, new = dispatch(algorithm, task, broadcast, state, *carry)
            value = decode(algorithm, sent.value, task.key, task.cohort)
            weight = jnp.asarray(sent.weight, jnp.float32)
            verdicts = exact.acceptable(value, exact.limit(task.cohort, weight))
            good = jnp.all(jnp.stack(verdicts)) if verdicts else jnp.bool_(True)
            row = _pack(jnp.where(good, weight, 0), verdicts, sent.metrics)
            columns = tree.map(lambda column, value: _put(column, value, i), columns, row)
            new = tree.map(lambda table, old, x: _put(table, jnp.where(good, x, old), i), kept, state, new)
        return self._absorbed(room, value, weight, good, i, index["groups"][i]), columns, new

    def _absorbed(self, room: Tree, value: Tree, weight: Array, good: Array, i: Array, group: Array) -> Tree:
        """Return the room with one update taken in, if it is a good one."""
        if self._algorithm.aggregator.needs is Needs.EACH:
            return tree.map(lambda rows, x: _put(rows, jnp.where(good, x, 0).astype(rows.dtype), i), room, value)
        added = tree.map(lambda x: jnp.where(good, exact.convert(x, weight), 0), value)
        if self._rows is None:
            return tree.add(room, added)
        return tree.map(lambda rows, x: _put(rows, _row(rows, group) + x, group), room, added)

    def _room(self, index: dict[str, Array], states: Tree) -> Any:
        """Return the empty room for updates, the empty columns and the states as they come."""
        assert self._shapes is not None, "the shapes are found before the first run"
        clients = index["starts"].shape[0]
        kind = jnp.float32 if self._algorithm.aggregator.needs is Needs.EACH else jnp.int64
        first = () if self._rows is None else (self._rows,)
        total = tree.map(lambda s: jnp.zeros((*first, *s.shape), kind), self._shapes.value)
        metrics = self._shapes.metrics
        scalars = 1 + len(tree.leaves(total)) + sum(s.shape == () for s in metrics.values())
        columns = {"scalars": jnp.zeros((clients, scalars), jnp.float32)}
        for name, s in metrics.items():
            if s.shape != ():
                columns[name] = jnp.zeros((clients, *s.shape), s.dtype)
        return total, columns, states

    def _look(self, floats: Tree, broadcast: Tree, data: Tree, index: dict[str, Array], states: Tree) -> None:
        """Find the shapes of updates and metrics, and the plan, without running anything."""

        def one(floats: Tree, broadcast: Tree, data: Tree, index: dict[str, Array], states: Tree) -> Any:
            zero = jnp.int32(0)
            carry = self._begin_client(floats, broadcast, index, zero, states)
            carry = self._step_client(floats, carry, data, index, zero, zero, zero)
            state = tree.map(lambda x: x[0], states)
            algorithm, task = self._traced(floats), _task(index, zero)
            sent, _ = dispatch(algorithm, task, broadcast, state, *carry)
            return decode(algorithm, sent.value, task.key, task.cohort), dict(sent.metrics)

        with jax.enable_x64(False):
            jaxpr, shapes = jax.make_jaxpr(one, return_shape=True)(floats, broadcast, data, index, states)
        self._stepwise = _has_convolution(jaxpr.jaxpr)
        self._shapes = _Shapes(*shapes)

    def _traced(self, floats: Tree) -> Algorithm:
        work, channel = join((self._algorithm.work, self._algorithm.channel), floats)
        return replace(self._algorithm, work=work, channel=channel)


def _task(index: dict[str, Array], i: Array) -> Task:
    return Task(index["keys"][i], index["examples"][i], index["rates"][i], index["cohort"])


def _batch(data: Tree, index: dict[str, Array], i: Array, row: Array, j: Array) -> Batch:
    numbers = index["rows"][row]
    mask = (jnp.arange(numbers.shape[0], dtype=jnp.int32) < index["valid"][row]).astype(jnp.float32)
    x, y = (tree.map(lambda a: jnp.take(a, numbers, axis=0, mode="clip"), data[part]) for part in ("x", "y"))
    return Batch(x, y, mask, step_key(index["keys"][i], j))


def _put(column: Array, value: Array, i: Array) -> Array:
    """Return the column with one row set. (``.at[i].set`` would check the bounds with kernels of its own.)"""
    return jax.lax.dynamic_update_index_in_dim(column, value, i, 0)


def _row(rows: Array, i: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(rows, i, 0, keepdims=False)


def _capacity_rows(aggregator: Aggregator, job: Job, clients: int) -> int | None:
    """Return how many rows the room for updates has at a capacity of so many clients; None for one sum."""
    if aggregator.needs is Needs.GROUPS:
        return aggregator.values(max(job.cohort, clients)) if job.cohort else 1
    return clients if aggregator.needs is Needs.EACH else None


def _pack(weight: Array, verdicts: Sequence[Array], metrics: Metrics) -> dict[str, Array]:
    """Return a client's row with all its scalars in one array: one write, not one for each."""
    scalars = [value for _, value in sorted(metrics.items()) if jnp.shape(value) == ()]
    packed = jnp.stack([jnp.asarray(x, jnp.float32) for x in (weight, *verdicts, *scalars)])
    arrays = {name: value for name, value in metrics.items() if jnp.shape(value) != ()}
    return {"scalars": packed, **arrays}


def _unpack(columns: dict[str, Array], shapes: Tree, leaves: int, count: int) -> tuple[Array, Array, dict[str, Array]]:
    """Return weights, verdicts and metrics of the first ``count`` clients."""
    scalars = columns["scalars"][:count]
    place, metrics = 1 + leaves, {}
    for name in sorted(shapes):
        if shapes[name].shape == ():
            metrics[name], place = scalars[:, place], place + 1
        else:
            metrics[name] = columns[name][:count]
    return scalars[:, 0], scalars[:, 1 : 1 + leaves] > 0, metrics


def _partial(
    aggregator: Aggregator, job: Job, room: Tree, columns: dict[str, Any], states: Tree, shapes: Tree
) -> Partial:
    count, leaves = len(job.tasks), len(tree.leaves(room))
    weights, accepted, metrics = _unpack(columns, shapes, leaves, count)
    rows = Rows(np.asarray(job.tasks.clients), weights, metrics, accepted, tree.names(room) if leaves else ())
    size = kept_rows(aggregator, job)
    kept = room if size is None else tree.map(lambda x: x[:size], room)
    return partial_of(aggregator, job, kept, rows, tree.map(lambda x: x[:count], states))


def _same_carry(before: Any, after: Any) -> None:
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        raise ModelError(f"A step must return a carry of the same structure. It took {old} and returned {new}.")
    flat, _ = jax.tree_util.tree_flatten_with_path(before)
    for (path, a), b in zip(flat, jax.tree.leaves(after), strict=True):
        if jnp.shape(a) != jnp.shape(b) or jnp.result_type(a) != jnp.result_type(b):
            raise ModelError(
                f"A step must keep shapes and types. {jax.tree_util.keystr(path)} was {jnp.result_type(a)}"
                f"{list(jnp.shape(a))} and became {jnp.result_type(b)}{list(jnp.shape(b))}."
            )


def _has_convolution(jaxpr: Any) -> bool:
    """Return whether a traced program holds a convolution at any depth."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            return True
        inner: list[Callable[..., Any]] = [v for v in jax.tree.leaves(list(equation.params.values()))]
        for value in inner:
            body = getattr(value, "jaxpr", value)
            if hasattr(body, "eqns") and _has_convolution(body):
                return True
    return False
