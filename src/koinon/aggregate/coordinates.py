"""What is computed of updates ``[clients, ...]`` block by block, so that every block stays in cache.

Sums run over the clients in the order they come, or over sorted values: the same bits on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from koinon import tree
from koinon.tree import Array, Tree

_SORTED = 1 << 10  # coordinates: 100 clients of them fill 400 KB
_ADDED = 1 << 14
_MULTIPLIED = 1 << 12


def coordinatewise(updates: Tree, rule: Callable[[Array], Array]) -> Tree:
    """Return in float64 what ``rule`` makes of every coordinate.

    ``rule`` is given ``[coordinates, clients]`` with the values of each coordinate in ascending order: a result that
    depends on these alone cannot depend on the order of the clients.
    """

    def leaf(values: Array) -> Array:
        rows = np.asarray(values).reshape(len(values), -1)
        out = np.empty(rows.shape[1], np.float64)
        for start in range(0, len(out), _SORTED):
            block = np.array(rows[:, start : start + _SORTED].T, order="C")  # a copy, to be sorted
            block.sort(axis=1)
            out[start : start + _SORTED] = rule(block) + 0.0  # of +0 and -0, which sort as they came, +0
        return out.reshape(np.shape(values)[1:])

    return tree.map(leaf, updates)


def weighted_sum(updates: Tree, factors: Array) -> Tree:
    """Return ``sum(factors[k] * updates[k])`` in float64, one client after the other."""
    chosen = np.nonzero(factors)[0].tolist()

    def leaf(values: Array) -> Array:
        rows = np.asarray(values).reshape(len(values), -1)
        out, scaled = np.zeros(rows.shape[1], np.float64), np.empty(_ADDED, np.float64)
        for start in range(0, len(out), _ADDED):
            into = out[start : start + _ADDED]
            for client in chosen:
                part = rows[client, start : start + _ADDED]
                into += np.multiply(part, factors[client], out=scaled[: part.size], dtype=np.float64)
        return out.reshape(np.shape(values)[1:])

    return tree.map(leaf, updates)


def products(updates: Tree, client: int | None = None) -> Array:
    """Return every client's squared norm, float64 ``[clients]``, or its product with one ``client``'s update."""
    total = np.zeros(len(tree.leaves(updates)[0]), np.float64)
    for block in _blocks(updates):
        wide = block.astype(np.float64)
        total += (wide * (wide if client is None else wide[client])).sum(axis=1)
    return total


def squared_distances(updates: Tree, *, exact: bool = False) -> Array:
    """Return the squared L2 distance of every two clients, float64 ``[clients, clients]``, from one Gram matrix.

    The matrix is computed in float32, block by block, and added up in float64; where two clients are so near each other
    that the difference of their products says little, or where ``exact`` asks for it, all of it in float64.
    """
    if not exact:
        gram = _gram(updates, np.float32)
        norms = np.diagonal(gram)
        distances = _distances(gram)
        near = distances <= _CANCELLED * (norms[:, None] + norms[None, :])
        if not np.any(near & ~np.eye(len(norms), dtype=bool)):
            return distances
    return _distances(_gram(updates, np.float64))


_CANCELLED = 2.0**-8
"""Of the squared norms: a squared distance below it has lost most of float32's digits."""


def _gram(updates: Tree, kind: type) -> Array:
    clients = len(tree.leaves(updates)[0])
    gram = np.zeros((clients, clients), np.float64)
    for block in _blocks(updates):
        part = block if block.dtype == np.float64 else block.astype(kind, copy=False)
        gram += part @ part.T
    return gram


def _distances(gram: Array) -> Array:
    norms = np.diagonal(gram)
    distances: Array = np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0)
    np.fill_diagonal(distances, 0)
    return distances


def _blocks(updates: Tree) -> Iterator[Array]:
    """Yield ``[clients, some coordinates]`` until all have been seen."""
    for leaf in tree.leaves(updates):
        rows = np.asarray(leaf).reshape(len(leaf), -1)
        for start in range(0, rows.shape[1], _MULTIPLIED):
            yield rows[:, start : start + _MULTIPLIED]
