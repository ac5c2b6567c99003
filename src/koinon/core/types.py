"""The values that pass between the rooms: batches, tasks, jobs, rows, partial totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from koinon.tree import Array, Tree

Metrics: TypeAlias = Mapping[str, Array]
"""Sums, not means: they add over batches and clients. ``examples`` is always among them."""
Variables: TypeAlias = Mapping[str, Tree]
"""``{"params": trained, "state": carried along}`` (BatchNorm statistics and the like; never seeds)."""


class Purpose(Enum):
    """What a job does with its clients' examples."""

    TRAIN = "train"
    EVALUATE = "evaluate"  # each client's own held-out examples
    TEST = "test"  # the server's own examples


@dataclass(frozen=True)
class Batch:
    """One batch of one client.

    The tail of a last batch is filled with real examples of the same client, so BatchNorm never sees
    padding; ``mask`` is 0 there. ``key`` is this step's own (uint32[2]).
    """

    x: Tree  # [batch, ...]
    y: Tree  # [batch, ...]
    mask: Array  # float32 [batch]
    key: Array  # uint32 [2]


@dataclass(frozen=True)
class Task:
    """What one client is asked to do in one round. Inside a compiled program the numbers are traced."""

    key: Array  # uint32 [2]: fold(seed, round, client)
    examples: Array  # how many examples the client holds for this purpose
    learning_rate: Array = 1.0  # factor on the client's own learning rate
    cohort: Array = 1  # how many clients this round has


@dataclass(frozen=True)
class Tasks:
    """The tasks of a cohort or of a chunk of one, as columns."""

    clients: Array  # int64 [n]: positions in the dataset
    keys: Array  # uint32 [n, 2]
    learning_rates: Array  # float32 [n]
    groups: Array | None = None  # int64 [n]: whose updates are added up together, where there are groups

    def __len__(self) -> int:
        return len(self.clients)

    def take(self, chosen: Array) -> Tasks:
        """Return the tasks at the positions ``chosen``."""
        groups = None if self.groups is None else self.groups[chosen]
        return Tasks(self.clients[chosen], self.keys[chosen], self.learning_rates[chosen], groups)


@dataclass(frozen=True)
class Update:
    """What a client sends: ``value`` (a tree of deltas) and its weight, a whole number below 2**24."""

    value: Tree
    weight: Any = 1


@dataclass(frozen=True)
class Payload:
    """What travels from a client to the server: the channel's encoding, its weight, the metric sums."""

    value: Tree
    weight: Array
    metrics: Metrics


@dataclass(frozen=True)
class Rows:
    """One row per client of a round, as columns, in the order the clients were computed."""

    clients: Array  # int64 [n]: positions in the dataset
    weights: Array  # float32 [n]; 0 where the client was refused
    metrics: Mapping[str, Array]  # [n, ...] sums over the client's batches
    accepted: Array  # bool [n, leaves]: which leaves of the update were acceptable
    leaves: tuple[str, ...]  # the names of those leaves
    lost: Mapping[int, str] = field(default_factory=dict)  # clients that were asked and sent nothing, and why
    pooled: Mapping[str, Array] | None = None  # the metrics' sums, where those of single clients are hidden
    void: str | None = None  # why nothing is known of what was asked for; then nobody's answer is in it

    def __len__(self) -> int:
        return len(self.clients)

    def refused(self) -> dict[int, tuple[str, ...]]:
        """Return the refused clients and the leaves they were refused for."""
        bad = np.nonzero(~self.accepted.all(axis=1))[0]
        return {int(self.clients[i]): tuple(np.asarray(self.leaves)[~self.accepted[i]].tolist()) for i in bad}

    def sums(self) -> dict[str, Array]:
        """Add the metrics of the accepted clients in float64, in client order: no chunk shows."""
        if self.pooled is not None:
            return dict(self.pooled)
        order = np.argsort(self.clients, kind="stable")
        kept = order[self.accepted[order].all(axis=1)]
        return {name: np.asarray(column)[kept].astype(np.float64).sum(axis=0) for name, column in self.metrics.items()}


@dataclass(frozen=True)
class Partial:
    """What an engine returns for a chunk, and a runtime for a whole round."""

    total: Tree  # int64: exact sum of weight * update, [groups, ...] where there are groups; {} if each is kept
    weight: Any  # exact sum of weights, int64 [groups] where there are groups
    rows: Rows
    states: Tree = field(default_factory=dict)  # new client states, stacked [n, ...] in row order; {} if none
    each: Tree = field(default_factory=dict)  # float32 [n, ...] updates in row order, 0 where refused; {} if not needed


@dataclass(frozen=True)
class Job:
    """The light half: one pass over one cohort."""

    purpose: Purpose
    round: int
    cohort: int  # the size of the whole cohort, never of a chunk
    broadcast: Tree
    tasks: Tasks
    following: Callable[[], Tasks] | None = None  # the next round's tasks, for whoever has to wait anyway

    def chunk(self, chosen: Array) -> Job:
        """Return the same job for some of its tasks."""
        return replace(self, tasks=self.tasks.take(chosen), following=None)


@dataclass(frozen=True)
class RoundFacts:
    """What the server may know of the round it settles."""

    round: int  # from 1
    cohort: int  # clients whose update was accepted
    population: int


@dataclass(frozen=True)
class Passes:
    """How a piece of work wants one client's examples."""

    batch_size: int | None  # None: all the client's examples in one batch
    epochs: int = 1
    steps: int | None = None  # a fixed number of batches instead of epochs, going round as often as needed
    shuffle: bool = True


@dataclass(frozen=True)
class Context:
    """What a channel step may know while it encodes one client's update."""

    key: Array  # uint32 [2]: this client's, this round's, this step's own
    cohort: Array
    broadcast: Tree = field(default_factory=dict)  # what the server sent; {} on the server
    bound: Callable[[], float | None] = lambda: None  # the L2 norm that the steps before promise, outside programs
