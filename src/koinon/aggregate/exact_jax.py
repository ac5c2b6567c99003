"""The exact sum compiled: check, convert and add one update in as few passes as XLA makes of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from koinon import exact, tree
from koinon.tree import Array, Tree

_BLOCK = 1 << 15


class ExactSum:
    """A running total of weighted updates, equal bit for bit to numpy's. Nothing but the total is kept."""

    def __init__(self, value: Tree, cohort: int) -> None:
        self._cohort = cohort
        with jax.enable_x64(True):
            self._total = tree.map(lambda x: jnp.zeros(np.shape(x), jnp.int64), value)
        self._weight = 0

    def absorb(self, value: Tree, weight: int) -> Array:
        """Add a float32 update unless it is refused; return the verdict of each leaf, in name order."""
        with jax.enable_x64(True):
            bound = np.float32(exact.limit(self._cohort, weight))
            self._total, checks = _add(self._total, value, np.float32(weight), bound)
            verdicts = np.asarray(checks)
            if not verdicts.all():  # integers undo exactly, whatever was added
                self._total = _subtract(self._total, value, np.float32(weight))
                return verdicts
        self._weight += weight
        return verdicts

    def finish(self) -> tuple[Tree, int]:
        """Return the total as int64 numpy arrays, and the summed weight."""
        return tree.to_numpy(self._total), self._weight


@partial(jax.jit, donate_argnums=0)
def _add(total: Tree, value: Tree, weight: Any, bound: Any) -> tuple[Tree, Array]:
    """Add in blocks that stay in cache, so that the check reads what the sum has just read."""
    pairs = tree.map(lambda t, x: _leaf(t, x, weight), total, value)
    squares = [pair[1] for pair in tree.leaves(pairs)]
    return tree.map(lambda pair: pair[0], pairs), jnp.stack(squares) <= bound * bound


def _leaf(total: Array, value: Array, weight: Any) -> tuple[Array, Array]:
    flat, x = total.reshape(-1), value.reshape(-1)
    blocks = x.size // _BLOCK

    def block(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        into, square = carry
        part = jax.lax.dynamic_slice(x, (i * _BLOCK,), (_BLOCK,))
        old = jax.lax.dynamic_slice(into, (i * _BLOCK,), (_BLOCK,))
        into = jax.lax.dynamic_update_slice(into, old + exact.convert(part, weight), (i * _BLOCK,))
        return into, square + jnp.vdot(part, part)

    square = jnp.float32(0)
    if blocks:
        flat, square = jax.lax.fori_loop(jnp.int32(0), jnp.int32(blocks), block, (flat, square))
    rest = x[blocks * _BLOCK :]
    flat = flat.at[blocks * _BLOCK :].add(exact.convert(rest, weight))
    return flat.reshape(total.shape), square + jnp.vdot(rest, rest)


@partial(jax.jit, donate_argnums=0)
def _subtract(total: Tree, value: Tree, weight: Any) -> Tree:
    return tree.map(lambda t, x: t - exact.convert(x, weight), total, value)
