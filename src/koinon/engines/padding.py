"""A cohort as arrays of the size of a capacity: one compiled program takes every cohort that fits."""

from __future__ import annotations

import numpy as np

from koinon import tree
from koinon.core.types import Job
from koinon.round.batches import Batches
from koinon.tree import Array, Tree


def cohort_index(job: Job, batches: Batches, capacity: tuple[int, int]) -> dict[str, Array]:
    """Return the cohort's index arrays, padded to their capacity: padding costs nothing and is not computed."""
    clients, steps = capacity
    groups = job.tasks.groups
    return {
        "rows": padded(batches.rows, steps),
        "valid": padded(batches.valid, steps),
        "starts": padded(batches.starts, clients),
        "steps": padded(batches.steps, clients),
        "examples": padded(batches.examples.astype(np.float32), clients),
        "keys": padded(job.tasks.keys, clients),
        "rates": padded(job.tasks.learning_rates, clients),
        "groups": np.zeros(clients, np.int32) if groups is None else padded(groups.astype(np.int32), clients),
        "count": np.int32(len(job.tasks)),
        "cohort": np.float32(job.cohort),
    }


def padded(array: Array, length: int) -> Array:
    """Return the array, filled up with zeros to a length."""
    out = np.zeros((length, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def padded_states(states: Tree, clients: int) -> Tree:
    """Return the states padded to the capacity."""
    return tree.map(lambda x: padded(np.asarray(x), clients), states)
