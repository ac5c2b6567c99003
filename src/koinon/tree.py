"""Arithmetic on trees: nested dicts of arrays, the shape of every model, update and state.

Leaves are visited in sorted name order, so a tree has one flat form. Flat names join the path with
a dot; a name may therefore not hold one. Empty dicts are legal and survive a round trip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of any library: numpy, JAX (traced or not), torch."""
Tree: TypeAlias = Any
"""A nested dict whose leaves are arrays: ``Mapping[str, Tree] | Array``."""

SEPARATOR = "."


def map(function: Callable[..., Any], first: Tree, *rest: Tree) -> Tree:
    """Apply ``function`` to the leaves of trees of one structure.

    >>> map(lambda a, b: a + b, {"w": 1, "b": {}}, {"w": 2, "b": {}})
    {'b': {}, 'w': 3}
    """
    if isinstance(first, Mapping):
        for other in rest:
            if not isinstance(other, Mapping) or other.keys() != first.keys():
                raise ValueError(f"trees differ: {sorted(first)} against {_describe(other)}")
        return {name: map(function, first[name], *(other[name] for other in rest)) for name in sorted(first)}
    return function(first, *rest)


def items(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """Yield ``(flat name, leaf)`` in sorted name order."""
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for name in sorted(tree):
        if SEPARATOR in name:
            raise ValueError(f"a name must not hold {SEPARATOR!r}: {name!r}")
        yield from items(tree[name], f"{prefix}{SEPARATOR}{name}" if prefix else name)


def names(tree: Tree) -> tuple[str, ...]:
    """Return the flat names of the leaves, in order."""
    return tuple(name for name, _ in items(tree))


def leaves(tree: Tree) -> list[Array]:
    """Return the leaves, in sorted name order."""
    return [leaf for _, leaf in items(tree)]


def structure(tree: Tree) -> Tree:
    """Return the same nesting with ``None`` for every leaf: JSON, for what travels beside flat arrays."""
    return map(lambda _: None, tree)


def fill(shape: Tree, values: Iterator[Any]) -> Tree:
    """Rebuild a tree of the nesting ``shape`` from its leaves in order."""
    return map(lambda _: next(values), shape)


def zeros(tree: Tree) -> Tree:
    """Return +0 in the shape of every leaf (never ``x * 0``: that is -0 or NaN)."""
    return map(lambda x: namespace(x).zeros_like(x), tree)


def add(left: Tree, right: Tree) -> Tree:
    """Return ``left + right``."""
    return map(lambda a, b: a + b, left, right)


def subtract(left: Tree, right: Tree) -> Tree:
    """Return ``left - right``."""
    return map(lambda a, b: a - b, left, right)


def scale(tree: Tree, factor: Any) -> Tree:
    """Return ``factor * tree``."""
    return map(lambda x: x * factor, tree)


def sum_of_squares(tree: Tree) -> Any:
    """Return the squared L2 norm over all leaves; 0.0 for a tree without leaves."""
    total: Any = 0.0
    for leaf in leaves(tree):
        total = total + namespace(leaf).sum(leaf * leaf)
    return total


def namespace(x: Array) -> Any:
    """Return the array library of ``x`` (Python array API), numpy for plain numbers."""
    find = getattr(x, "__array_namespace__", None)
    return np if find is None else find()


def to_numpy(tree: Tree) -> Tree:
    """Return the same tree with numpy leaves (no copy where the library allows a view)."""
    return map(np.asarray, tree)


def size(tree: Tree) -> int:
    """Return how many numbers the tree holds."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in leaves(tree))


def size_bytes(tree: Tree) -> int:
    """Return how many bytes the leaves take."""
    return sum(np.asarray(leaf).nbytes for leaf in leaves(tree))


def digest(tree: Tree) -> str:
    """Return the SHA-256 over the leaves in name order: name, dtype, shape, little-endian bytes.

    ``x + 0.0`` turns a negative zero into zero first: the sign of a zero is not a difference of models.
    """
    state = hashlib.sha256()
    for name, leaf in items(tree):
        array = np.asarray(leaf)
        if array.dtype.kind == "f":
            array = array + array.dtype.type(0)
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        state.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        state.update(little.tobytes())
    return state.hexdigest()


def _describe(tree: Tree) -> str:
    return str(sorted(tree)) if isinstance(tree, Mapping) else f"a leaf of shape {np.shape(tree)}"
