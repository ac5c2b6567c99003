"""One client's round: the single definition that every engine calls, with a loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from koinon import keys, tree
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Model
from koinon.core.types import Batch, Context, Metrics, Task
from koinon.tree import Array, Tree

Step: TypeAlias = Callable[[Any, Batch], tuple[Any, Metrics]]
Loop: TypeAlias = Callable[[Step, Any], tuple[Any, Metrics]]
"""Runs a step over a client's batches: a Python loop, a compiled one. Returns the carry and metric sums."""


@dataclass(frozen=True)
class Reply:
    """What the server has of a client after the channel: a real value, its weight, the metric sums."""

    value: Tree
    weight: Array
    metrics: Metrics


def initial_state(algorithm: Algorithm, broadcast: Tree) -> Tree:
    """Return what a client keeps before its first round; a tree without leaves if nothing."""
    work = algorithm.work.init(broadcast)
    if not algorithm.channel:
        return {"work": work, "channel": {}}
    value = tree.zeros(broadcast)  # an update has the shape of what was broadcast
    return {"work": work, "channel": {str(i): t.init(value) for i, t in enumerate(algorithm.channel)}}


def client_round(
    algorithm: Algorithm, model: Model, task: Task, broadcast: Tree, state: Tree, loop: Loop
) -> tuple[Reply, Tree]:
    """Train one client and pass its update through the channel."""
    work = algorithm.work
    carry = work.begin(task, broadcast, state["work"])
    carry, seen = loop(lambda c, batch: work.step(model, c, batch), carry)
    return conclude(algorithm, task, broadcast, state, carry, seen)


def conclude(
    algorithm: Algorithm, task: Task, broadcast: Tree, state: Tree, carry: Any, seen: Metrics
) -> tuple[Reply, Tree]:
    """Turn the last carry into a reply and the client's new state."""
    update, kept = algorithm.work.finish(task, broadcast, carry)
    value, channel = transmit(algorithm, update.value, state["channel"], task)
    return Reply(value, update.weight, seen), {"work": kept, "channel": channel}


def transmit(algorithm: Algorithm, value: Tree, state: Tree, task: Task) -> tuple[Tree, Tree]:
    """Encode through every step of the channel, then decode back in reverse."""
    contexts = [
        Context(keys.fold(task.key, keys.Purpose.CHANNEL.value, i), task.cohort) for i in range(len(algorithm.channel))
    ]
    kept = {}
    for i, transform in enumerate(algorithm.channel):
        value, kept[str(i)] = transform.encode(value, state[str(i)], contexts[i])
    for i, transform in reversed(list(enumerate(algorithm.channel))):
        value = transform.decode(value, contexts[i])
    return value, kept


def step_key(task_key: Array, step: Any) -> Array:
    """Return the key of one batch."""
    return keys.fold(task_key, keys.Purpose.STEP.value, step)
