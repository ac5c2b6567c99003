"""Every sum is a sum of integers, so no order of clients, workers or restarts can change a result.

A weighted update becomes signed 64-bit fixed point: ``rint(x * (w * 2**30))``, half to even, the
bracket first, all in float32: the product with a power of two is exact, so every array library agrees.
Integer addition has no order. A client whose leaf has ``sum(x**2) > limit**2`` is refused before it can
overflow the range it was promised, which catches NaN, infinity and size in one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from koinon.tree import Array, Tree, leaves, map, namespace

FRACTION_BITS = 30
SCALE = 2.0**FRACTION_BITS
"""Fixed-point units per 1.0."""
RANGE = 2.0**32
"""The cohort's share of |sum of w * x|: half of what 63 bits hold at SCALE."""
LARGEST_WEIGHT = 2**24
"""Weights are whole numbers below this: exact in float32."""
_BLOCK = 1 << 15
_ROUNDER = np.float64(1.5 * 2.0**52)
_ROUNDER_BITS = _ROUNDER.view(np.int64)
_SMALL_SQUARES = np.float32(2.0**102)  # then no number of the block is 2**51 or more


def limit(cohort: int, weight: Any) -> Any:
    """Return the largest leaf norm one client may send: ``2**32 / (cohort * weight)``.

    ``cohort`` is the size of the round's whole cohort, never of a chunk: the answer must not depend on
    how the round was split.
    """
    return RANGE / (cohort * weight)


def acceptable(value: Tree, bound: Any) -> list[Any]:
    """Return one truth value a leaf, in name order: finite, and of norm at most ``bound``."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = bound * bound
        return [namespace(leaf).vdot(leaf.reshape(-1), leaf.reshape(-1)) <= square for leaf in leaves(value)]


def convert(x: Array, weight: Any) -> Array:
    """Return ``rint(x * (weight * 2**30))`` as int64; ``x`` and ``weight`` are float32."""
    xp = namespace(x)
    return xp.rint(x * (weight * xp.float32(SCALE))).astype(xp.int64)


def zero(value: Tree) -> Tree:
    """Return the empty total of updates shaped like ``value``: int64 numpy zeros."""
    return map(lambda x: np.zeros(np.shape(x), np.int64), value)


def accumulate(total: Tree, value: Tree, weight: int) -> None:
    """Add a float32 numpy update into ``total`` in place, in blocks that stay in cache."""
    factor = np.float32(weight) * np.float32(SCALE)
    scaled, wide = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float64)

    def leaf(into: Array, x: Array) -> None:
        flat, source = into.reshape(-1), np.ascontiguousarray(x, np.float32).reshape(-1)
        for start in range(0, source.size, _BLOCK):
            part = source[start : start + _BLOCK]
            _add_rounded(flat[start : start + part.size], np.multiply(part, factor, out=scaled[: part.size]), wide)

    with np.errstate(over="ignore"):  # that a block's squares overflow says that its numbers are large
        map(leaf, total, value)


def _add_rounded(into: Array, real: Array, wide: Array) -> None:
    """Add ``rint(real)`` to int64 numbers in place.

    A float64 of 2**52 + 2**51 + v, with |v| below 2**51, has v rounded half to even in its low bits and the constant
    in the others: one addition rounds, and the bits are added as they are. Processors have no faster way from float32 to int64.
    """
    if np.vdot(real, real) < _SMALL_SQUARES:
        shifted = np.add(real, _ROUNDER, out=wide[: real.size])
        into += shifted.view(np.int64)
        into -= _ROUNDER_BITS
    else:
        into += np.rint(real).astype(np.int64)


def merge(left: Tree, right: Tree) -> Tree:
    """Return the total of two disjoint groups of clients."""
    return map(lambda a, b: a + b, left, right)


def mean(total: Tree, weight: int) -> Tree:
    """Return ``total / (weight * 2**30)`` as float64; ``weight`` is the sum of the clients' weights."""
    return map(lambda t: t / (float(weight) * SCALE), total)
