"""The definition: a plain Python loop over ``client_round``. Slow, exact, and it names what fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from koinon import tree
from koinon.core.algorithm import Algorithm
from koinon.core.execution import Plan
from koinon.core.protocols import Aggregator, Dataset
from koinon.core.types import Batch, Job, Metrics, Partial, Payload, Purpose, Rows, Task
from koinon.errors import ClientError, KoinonError
from koinon.round.batches import Batches, cut
from koinon.round.client import Step, client_round, decode, initial_state, step_key
from koinon.round.evaluation import EVALUATION
from koinon.round.settle import Room, grouped, partial_of
from koinon.tree import Array, Tree


def task_parts(plan: Plan, job: Job) -> tuple[Algorithm, Dataset]:
    """Return the algorithm and the data a job is about."""
    if job.purpose is Purpose.TRAIN:
        return plan.algorithm, plan.data
    data = plan.data if job.purpose is Purpose.EVALUATE else plan.test
    assert data is not None, "a job to test without test data"
    return EVALUATION, data


class ReferenceEngine:
    """Computes clients one by one in Python."""

    name = "reference"

    def run(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Compute every task; a failure raises ClientError with the client and the stage."""
        algorithm, data = task_parts(plan, job)
        batches = cut(algorithm.work.passes(), data, job.purpose, job.tasks)
        broadcast = tree.to_numpy(job.broadcast)
        job = grouped(algorithm.aggregator, job)
        room: Room | None = None
        replies: list[Payload] = []
        verdicts: list[Array] = []
        kept: list[Tree] = []
        for i in range(len(job.tasks)):
            state = _state(algorithm, job, broadcast, states, i)
            sent, new = _one(plan, job, batches, i, broadcast, state)
            reply = _decoded(algorithm, job, i, sent)
            room = Room(algorithm.aggregator, job, reply.value) if room is None else room
            verdict = room.absorb(i, reply.value, float(reply.weight))
            replies.append(reply)
            verdicts.append(verdict)
            kept.append(tree.to_numpy(new) if verdict.all() else state)
        return _partial(algorithm.aggregator, job, {} if room is None else room.kept, replies, verdicts, kept)

    def send(self, plan: Plan, job: Job, states: Tree) -> tuple[Payload, Tree]:
        """Compute the one task of the job."""
        algorithm, data = task_parts(plan, job)
        batches = cut(algorithm.work.passes(), data, job.purpose, job.tasks)
        broadcast = tree.to_numpy(job.broadcast)
        sent, new = _one(plan, job, batches, 0, broadcast, _state(algorithm, job, broadcast, states, 0))
        metrics = {name: np.asarray(value, np.float32) for name, value in sent.metrics.items()}
        return Payload(tree.map(_sendable, sent.value), sent.weight, metrics), tree.map(
            lambda x: np.asarray(x)[None], new
        )


def _state(algorithm: Algorithm, job: Job, broadcast: Tree, states: Tree, i: int) -> Tree:
    if job.purpose is not Purpose.TRAIN:
        return initial_state(algorithm, broadcast)
    return tree.map(lambda x: x[i], states)


def _decoded(algorithm: Algorithm, job: Job, i: int, sent: Payload) -> Payload:
    value = decode(algorithm, sent.value, job.tasks.keys[i], np.float32(job.cohort))
    return Payload(tree.map(lambda x: np.asarray(x, np.float32), value), sent.weight, sent.metrics)


def _sendable(leaf: Array) -> Array:
    """Return a leaf as it travels: real numbers are float32."""
    array = np.asarray(leaf)
    return np.asarray(array, np.float32) if array.dtype.kind == "f" else array


def _one(plan: Plan, job: Job, batches: Batches, i: int, broadcast: Tree, state: Tree) -> tuple[Payload, Tree]:
    algorithm, data = task_parts(plan, job)
    tasks, name = job.tasks, data.names[int(job.tasks.clients[i])]
    task = Task(tasks.keys[i], np.float32(batches.examples[i]), tasks.learning_rates[i], np.float32(job.cohort))

    def loop(step: Step, carry: Any) -> tuple[Any, Metrics]:
        seen: dict[str, Array] = {}
        for j in range(int(batches.steps[i])):
            carry, metrics = step(carry, batch_of(data, batches, i, j, task.key))
            seen = {key: seen.get(key, 0) + np.asarray(value) for key, value in metrics.items()}
        return carry, seen

    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a diverging client is refused by name, not warned of
            return client_round(algorithm, plan.model, task, broadcast, state, loop)
    except KoinonError:
        raise
    except Exception as error:
        at = "training" if job.purpose is Purpose.TRAIN else "judging the model"
        raise ClientError(
            f"Client {name!r} failed while {at}: {type(error).__name__}: {error}. "
            "The traceback above names the line; mend it and run again.",
            client=name,
            stage=job.purpose.value,
        ) from error


def batch_of(data: Dataset, batches: Batches, i: int, j: int, key: Array) -> Batch:
    """Return batch ``j`` of task ``i`` as numpy arrays."""
    row = int(batches.starts[i]) + j
    numbers = batches.rows[row]
    mask = (np.arange(len(numbers)) < batches.valid[row]).astype(np.float32)
    x, y = (tree.map(lambda a: a[numbers], part) for part in (data.x, data.y))
    return Batch(x, y, mask, step_key(key, j))


def _partial(
    aggregator: Aggregator, job: Job, room: Tree, replies: list[Payload], verdicts: list[Array], kept: list[Tree]
) -> Partial:
    weights = np.array(
        [float(r.weight) if v.all() else 0.0 for r, v in zip(replies, verdicts, strict=True)], np.float32
    )
    names = sorted({name for reply in replies for name in reply.metrics})
    shapes = {name: next(r.metrics[name] for r in replies if name in r.metrics) for name in names}
    metrics = {
        name: np.stack([np.asarray(r.metrics.get(name, np.zeros_like(shapes[name])), np.float32) for r in replies])
        for name in names
    }
    leaves = tree.names(room) if tree.leaves(room) else ()
    accepted = np.stack(verdicts) if verdicts else np.ones((0, len(leaves)), bool)
    rows = Rows(np.asarray(job.tasks.clients), weights, metrics, accepted, leaves)
    states = tree.map(lambda *x: np.stack(x), *kept) if kept else {}
    return partial_of(aggregator, job, room, rows, states)
