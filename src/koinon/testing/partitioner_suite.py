"""What every partitioner must hold to."""

from __future__ import annotations

import numpy as np

from koinon import keys
from koinon.data.partition import Partitioner, partition
from koinon.tree import Array


def check_partitioner(partitioner: Partitioner, y: Array | None = None) -> None:
    """Raise AssertionError unless every row goes to one client, every client has one, and the key decides alone.

    ``y`` are labels ``[rows]``; 300 rows of ten classes unless given.
    """
    labels = np.arange(300, dtype=np.int32) % 10 if y is None else y
    given = labels.copy()
    names, owner = partitioner.deal(labels, keys.root(3))
    again, other = partitioner.deal(labels.copy(), keys.root(3))
    assert np.array_equal(labels, given), f"{partitioner!r} changed the labels"
    assert list(names) == list(again), f"{partitioner!r} named other clients with the same key"
    assert np.array_equal(owner, other), f"{partitioner!r} dealt otherwise with the same key"
    assert owner.shape == (len(labels),), f"{partitioner!r} must give one owner a row; found shape {owner.shape}"
    assert len(set(names)) == len(names), f"{partitioner!r} gave two clients one name"
    counts = np.bincount(owner, minlength=len(names))
    assert len(counts) == len(names), f"{partitioner!r} dealt to clients without a name"
    assert counts.min() >= 1, f"{partitioner!r} left {names[int(counts.argmin())]!r} without examples"
    data = partition(np.arange(len(labels), dtype=np.float32), labels, partitioner, holdout=0.2, seed=3)
    assert np.array_equal(np.sort(data.order()), np.arange(len(labels))), f"{partitioner!r} lost or doubled a row"
