"""The exact sum compiled: convert and add one update in one pass, check it in another, undo it if refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from koinon import exact, tree
from koinon.tree import Array, Tree


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
    added = tree.map(lambda t, x: t + exact.convert(x, weight), total, value)
    return added, jnp.stack(exact.acceptable(value, bound))


@partial(jax.jit, donate_argnums=0)
def _subtract(total: Tree, value: Tree, weight: Any) -> Tree:
    return tree.map(lambda t, x: t - exact.convert(x, weight), total, value)
