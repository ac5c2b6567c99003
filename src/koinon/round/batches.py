"""Cut a cohort's examples into batches, on the host, for all clients at once: every engine sees the same.

The rows of a client are shuffled by sorting threefry bits of (client key, epoch, position). A short last
batch is filled with the client's own first rows, and ``valid`` says how many count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from koinon import keys
from koinon.core.protocols import Dataset
from koinon.core.types import Passes, Purpose, Tasks
from koinon.errors import DataError
from koinon.tree import Array

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Batches:
    """The batches of a cohort, one after the other; client i has ``steps[i]`` of them from ``starts[i]``."""

    rows: Array  # int32 [steps, batch]: row numbers of the dataset's arrays
    valid: Array  # int32 [steps]: how many of a batch's rows count
    starts: Array  # int32 [n]
    steps: Array  # int32 [n]
    examples: Array  # int32 [n]: the clients' own examples, each counted once


def batch_size(passes: Passes, counts: Array) -> int:
    """Return the number of rows in every batch: what was asked for, or the largest client."""
    return passes.batch_size or int(np.max(counts, initial=1))


def step_counts(passes: Passes, counts: Array) -> Array:
    """Return how many batches each client takes."""
    size = batch_size(passes, counts)
    each = -(-np.asarray(counts, np.int64) // size)
    return np.where(each > 0, passes.steps, 0) if passes.steps else each * passes.epochs


def cut(passes: Passes, data: Dataset, purpose: Purpose, tasks: Tasks) -> Batches:
    """Return the batches of ``tasks``; only training shuffles."""
    offsets, counts = data.span(tasks.clients, held_out=purpose is Purpose.EVALUATE)
    if purpose is Purpose.TRAIN and len(counts) and counts.min() < 1:
        name = data.names[int(tasks.clients[int(np.argmin(counts))])]
        raise DataError(f"Client {name!r} has no examples to train on. Give it some, or leave it out.")
    size = _batch_size(passes, data, purpose)
    steps = step_counts(passes, counts)
    per_epoch = np.maximum(-(-counts // size), 1)
    epochs = -(-steps // per_epoch)  # a fixed number of steps may end within an epoch
    order = _order(passes, tasks.keys, counts, epochs)
    rows, valid = _fill(size, counts, epochs, order, data.order(), offsets)
    if passes.steps:
        rows, valid = _first_steps(rows, valid, per_epoch * epochs, steps)
    starts = np.cumsum(steps) - steps
    return Batches(rows, valid, starts.astype(np.int32), steps.astype(np.int32), counts.astype(np.int32))


def _batch_size(passes: Passes, data: Dataset, purpose: Purpose) -> int:
    """Return the rows of a batch: the same for any chunk, so the largest client of all counts where one does.

    Judging reads few examples of each of many clients: a batch has no more rows than the largest can fill.
    """
    if purpose is Purpose.TRAIN and passes.batch_size:
        return passes.batch_size
    _, counts = data.span(np.arange(len(data)), held_out=purpose is Purpose.EVALUATE)
    largest = batch_size(replace(passes, batch_size=None), counts)
    return min(passes.batch_size or largest, largest)


def _order(passes: Passes, client_keys: Array, counts: Array, epochs: Array) -> Array:
    """Return positions within each client, ``counts[i] * epochs[i]`` of them, shuffled epoch by epoch."""
    if not len(counts):
        return np.empty(0, np.int64)
    client = np.repeat(np.arange(len(counts)), epochs)
    size = np.asarray(counts)[client]
    group = np.repeat(np.arange(len(size)), size)
    position = np.arange(len(group)) - (np.cumsum(size) - size)[group]
    if not passes.shuffle or not len(group):
        return position
    epoch = np.arange(len(client)) - (np.cumsum(epochs) - epochs)[client]
    stream = keys.fold(client_keys[client], keys.Purpose.SHUFFLE.value, epoch.astype(np.uint32))
    # Groups come in order already, which is what makes this sort fast.
    shuffled = np.argsort((group.astype(np.uint64) << np.uint64(32)) | _words(stream, size), kind="stable")
    return position[shuffled]


def _words(stream: Array, size: Array) -> Array:
    """Return a random word a position, group after group; one block of the cipher serves two neighbours."""
    blocks = (size + 1) // 2
    group = np.repeat(np.arange(len(size)), blocks)
    block = (np.arange(len(group)) - (np.cumsum(blocks) - blocks)[group]).astype(np.uint32)
    words = np.empty((len(group), 2), np.uint32)
    words[:, 0], words[:, 1] = keys.threefry(stream[group], np.zeros_like(block), block)
    odd = np.nonzero(size % 2)[0]
    flat = words.reshape(-1)
    return np.delete(flat, 2 * np.cumsum(blocks)[odd] - 1) if len(odd) else flat


def _fill(
    size: int, counts: Array, epochs: Array, order: Array, row_numbers: Array, offsets: Array
) -> tuple[Array, Array]:
    """Lay the ordered positions out in batches of ``size``, wrapping each epoch's last one round."""
    client = np.repeat(np.arange(len(counts)), epochs)
    n = counts[client]
    start = np.cumsum(n) - n
    batches = -(-n // size)
    epoch_of_batch = np.repeat(np.arange(len(client)), batches)
    within = np.arange(len(epoch_of_batch)) - (np.cumsum(batches) - batches)[epoch_of_batch]
    length = n[epoch_of_batch]
    place = within[:, None] * size + np.arange(size)[None, :]
    over = place >= length[:, None]
    if over.any():
        place = np.where(over, place % np.maximum(length, 1)[:, None], place)
    flat = order[start[epoch_of_batch][:, None] + place]
    rows = row_numbers[offsets[client[epoch_of_batch]][:, None] + flat]
    valid = np.minimum(size, length - within * size)
    return rows.astype(np.int32, copy=False), valid.astype(np.int32)


def _first_steps(rows: Array, valid: Array, made: Array, wanted: Array) -> tuple[Array, Array]:
    """Keep the first ``wanted[i]`` of the ``made[i]`` batches of each client."""
    client = np.repeat(np.arange(len(made)), made)
    number = np.arange(len(client)) - (np.cumsum(made) - made)[client]
    kept = number < wanted[client]
    return rows[kept], valid[kept]
