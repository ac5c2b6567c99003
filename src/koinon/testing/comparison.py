"""Saying that trees are equal, or near each other, and where they are not."""

from __future__ import annotations

import numpy as np

from koinon import tree
from koinon.core.types import Partial, Rows
from koinon.tree import Tree


def same(left: Tree, right: Tree, what: str) -> None:
    """Raise AssertionError unless both trees have the same names, types, shapes and bits (-0 is 0)."""
    _alike(left, right, what)
    for (name, a), b in zip(tree.items(left), tree.leaves(right), strict=True):
        assert tree.digest(a) == tree.digest(b), f"{what}: {name or 'the leaf'} differs:\n{a}\nagainst\n{b}"


def near(left: Tree, right: Tree, tolerance: float, what: str) -> None:
    """Raise AssertionError unless every leaf differs by at most ``tolerance`` times the largest number of the tree."""
    _alike(left, right, what)
    largest = max((float(np.max(np.abs(leaf), initial=0.0)) for leaf in tree.leaves(right)), default=0.0)
    for (name, a), b in zip(tree.items(left), tree.leaves(right), strict=True):
        gap = float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0.0))
        assert gap <= tolerance * largest, (
            f"{what}: {name or 'the leaf'} differs by {gap:.3g}; the largest is {largest:.3g}"
        )


def same_partial(left: Partial, right: Partial, what: str) -> None:
    """Raise AssertionError unless totals, weights, single updates, rows and states are equal bit for bit."""
    assert np.array_equal(left.weight, right.weight), f"{what}: the weights are {left.weight} and {right.weight}"
    same(left.total, right.total, f"{what}, total")
    same(left.each, right.each, f"{what}, single updates")
    same(left.states, right.states, f"{what}, client states")
    assert left.rows.leaves == right.rows.leaves, f"{what}: the leaves are {left.rows.leaves} and {right.rows.leaves}"
    same(columns(left.rows), columns(right.rows), f"{what}, rows")


def columns(rows: Rows) -> Tree:
    """Return the columns of rows as a tree."""
    return {
        "clients": np.asarray(rows.clients),
        "weights": np.asarray(rows.weights),
        "accepted": np.asarray(rows.accepted),
        "metrics": {name: np.asarray(column) for name, column in rows.metrics.items()},
    }


def copied(value: Tree) -> Tree:
    """Return the tree with leaves of its own: what a part changed in place shows against it."""
    return tree.map(lambda leaf: np.array(leaf), value)


def _alike(left: Tree, right: Tree, what: str) -> None:
    assert tree.structure(left) == tree.structure(right), (
        f"{what}: the leaves are {list(tree.names(left))} and {list(tree.names(right))}"
    )
    for (name, a), b in zip(tree.items(left), tree.leaves(right), strict=True):
        found, wanted = (np.shape(a), np.asarray(a).dtype), (np.shape(b), np.asarray(b).dtype)
        assert found == wanted, f"{what}: {name or 'the leaf'} is {found} and should be {wanted}"
