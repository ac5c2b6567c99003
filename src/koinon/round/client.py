"""One client's round: the single definition that every engine calls, with a loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from koinon import keys, tree
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Model
from koinon.core.types import Batch, Context, Metrics, Payload, Task
from koinon.tree import Array, Tree

Step: TypeAlias = Callable[[Any, Batch], tuple[Any, Metrics]]
Loop: TypeAlias = Callable[[Step, Any], tuple[Any, Metrics]]
"""Runs a step over a client's batches: a Python loop, a compiled one. Returns the carry and metric sums."""


def initial_state(algorithm: Algorithm, broadcast: Tree) -> Tree:
    """Return what a client keeps before its first round; a tree without leaves if nothing."""
    work = algorithm.work.init(broadcast)
    if not algorithm.channel:
        return {"work": work, "channel": {}}
    value = tree.zeros(broadcast)  # an update has the shape of what was broadcast
    return {"work": work, "channel": {str(i): t.init(value) for i, t in enumerate(algorithm.channel)}}


def client_round(
    algorithm: Algorithm, model: Model, task: Task, broadcast: Tree, state: Tree, loop: Loop
) -> tuple[Payload, Tree]:
    """Train one client and encode its update; :func:`decode` is the server's half."""
    work = algorithm.work
    carry = work.begin(task, broadcast, state["work"])
    carry, seen = loop(lambda c, batch: work.step(model, c, batch), carry)
    return dispatch(algorithm, task, broadcast, state, carry, seen)


def dispatch(
    algorithm: Algorithm, task: Task, broadcast: Tree, state: Tree, carry: Any, seen: Metrics
) -> tuple[Payload, Tree]:
    """Turn the last carry into what travels and the client's new state."""
    update, kept = algorithm.work.finish(task, broadcast, carry)
    value, channel = encode(algorithm, update.value, state["channel"], broadcast, task.key, task.cohort)
    weight = np.float32(1) if algorithm.private else update.weight
    return Payload(value, weight, seen), {"work": kept, "channel": channel}


def encode(
    algorithm: Algorithm, value: Tree, state: Tree, broadcast: Tree, key: Array, cohort: Array
) -> tuple[Tree, Tree]:
    """Return an update as the channel sends it, and each step's new state; ``key`` is that of the client's task."""
    new = {}
    for i, transform in enumerate(algorithm.channel):
        context = replace(_context(key, cohort, i), broadcast=broadcast, bound=partial(_bound, algorithm, i))
        value, new[str(i)] = transform.encode(value, state[str(i)], context)
    return value, new


def decode(algorithm: Algorithm, payload: Tree, key: Array, cohort: Array) -> Tree:
    """Return the update that the server reads from a client's payload; ``key`` is that of the client's task."""
    for i, transform in reversed(list(enumerate(algorithm.channel))):
        payload = transform.decode(payload, _context(key, cohort, i))
    return payload


def _context(key: Array, cohort: Array, place: int) -> Context:
    return Context(keys.fold(key, keys.Purpose.CHANNEL.value, place), cohort)


def _bound(algorithm: Algorithm, place: int) -> float | None:
    return algorithm.wires()[place][1].l2_bound


def step_key(task_key: Array, step: Any) -> Array:
    """Return the key of one batch."""
    return keys.fold(task_key, keys.Purpose.STEP.value, step)
