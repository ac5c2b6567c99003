"""What is computed of updates ``[clients, ...]`` block by block, so that every block stays in cache.

Sums run over the clients in the order they come, or over sorted values: the same bits on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

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

    The matrix is computed in float32, block by block, and added up in float64. Of two long updates near each other the
    difference of their products says little: where most are near one of them, all are seen from there, and
    clients that are still too near each other, or all where ``exact`` asks for it, are multiplied in float64.
    """
    if exact:
        return _distances(_gram(updates, np.float64))
    gram = _gram(updates, np.float32, _centre(updates))
    distances, norms = _distances(gram), np.diagonal(gram)
    near = distances <= _CANCELLED * (norms[:, None] + norms[None, :]) + _TINY
    again = np.nonzero((near & ~np.eye(len(norms), dtype=bool)).any(axis=1))[0]
    if len(again):
        distances[np.ix_(again, again)] = _distances(_gram(updates, np.float64, clients=again))
    return distances


_CANCELLED = 2.0**-8
"""Of the squared norms: a squared distance below it has lost most of float32's digits."""
_TINY = 1e-25
"""Squares of so small a distance are near the least that float32 can hold."""
_ALIKE = 2.0**-5
"""Of the squared norms: updates nearer than that are better seen from one of them."""
_ALL = slice(None)


def _centre(updates: Tree) -> int | None:
    """Return the client whom most are near, if there is one, by a sample: it decides how fast, not what comes out."""
    largest = max(tree.leaves(updates), key=np.size)
    gram = _gram(np.asarray(largest).reshape(len(largest), -1)[:, :_MULTIPLIED], np.float64)
    usual = np.median(_distances(gram), axis=1)
    best = int(np.argmin(usual))
    return best if usual[best] < _ALIKE * np.median(np.diagonal(gram)) else None


def _gram(updates: Tree, kind: type, centre: int | None = None, *, clients: Any = _ALL) -> Array:
    """Return the products of the updates of ``clients`` with each other, as seen from that of ``centre``."""
    count = len(np.arange(len(tree.leaves(updates)[0]))[clients])
    gram = np.zeros((count, count), np.float64)
    for block in _blocks(updates):
        part = block[clients]
        part = part if part.dtype == np.float64 else part.astype(kind, copy=False)
        seen = part if centre is None else part - part[centre]
        gram += seen @ seen.T
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
