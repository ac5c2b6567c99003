"""Rules that look at one coordinate of all updates at a time, in blocks that stay in cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from koinon import tree
from koinon.tree import Array, Tree

_BLOCK = 1 << 11


def coordinatewise(updates: Tree, rule: Callable[[Array], Array]) -> Tree:
    """Return in float64 what ``rule`` makes of every coordinate of updates ``[clients, ...]``.

    ``rule`` is given ``[coordinates, clients]`` with the values of each coordinate in ascending order: a result that
    depends on these alone cannot depend on the order of the clients.
    """

    def leaf(values: Array) -> Array:
        rows = np.asarray(values).reshape(len(values), -1)
        out = np.empty(rows.shape[1], np.float64)
        for start in range(0, len(out), _BLOCK):
            block = np.array(rows[:, start : start + _BLOCK].T, order="C")  # a copy, to be sorted
            block.sort(axis=1)
            out[start : start + _BLOCK] = rule(block)
        return out.reshape(np.shape(values)[1:])

    return tree.map(leaf, updates)
