"""One row per client that ever took part, in one table that grows by doubling."""

from __future__ import annotations

import numpy as np

from koinon import tree
from koinon.tree import Array, Tree


class MemoryStates:
    """Client states in memory. Clients that never took part take no room."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._table: Tree = None

    def __len__(self) -> int:
        return len(self._slots)

    def read(self, clients: Array, initial: Tree) -> Tree:
        """Return the states of ``clients`` stacked ``[n, ...]``; ``initial`` for those who have none."""
        if not tree.leaves(initial):
            return initial
        slots = np.array([self._slots.get(int(client), -1) for client in clients], np.int64)

        def rows(default: Array, table: Array | None = None) -> Array:
            out = np.empty((len(slots), *np.shape(default)), np.asarray(default).dtype)
            out[slots < 0] = default
            if table is not None:
                out[slots >= 0] = table[slots[slots >= 0]]
            return out

        return tree.map(rows, initial) if self._table is None else tree.map(rows, initial, self._table)

    def put(self, client: int, state: Tree) -> None:
        """Write one client's row, as a run directory kept it."""
        self.stage(np.array([client]), tree.map(lambda x: np.asarray(x)[None], state))

    def stage(self, clients: Array, states: Tree) -> None:
        """Write the rows of a committed round."""
        rows = tree.to_numpy(states)
        for client in clients:
            self._slots.setdefault(int(client), len(self._slots))
        if self._table is None:
            self._table = tree.map(lambda x: np.zeros((0, *x.shape[1:]), x.dtype), rows)
        slots = np.array([self._slots[int(client)] for client in clients], np.int64)
        needed = len(self._slots)

        def write(table: Array, new: Array) -> Array:
            if len(table) < needed:
                table = np.concatenate([table, np.zeros((max(needed, len(table)), *new.shape[1:]), new.dtype)])
            table[slots] = new
            return table

        self._table = tree.map(write, self._table, rows)
