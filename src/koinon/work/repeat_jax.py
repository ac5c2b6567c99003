"""A loop inside a compiled JAX program."""

from __future__ import annotations

from collections.abc import Callable

import jax

from koinon.tree import Array


def repeat(
    turn: Callable[[tuple[Array, ...]], tuple[Array, ...]], times: int, state: tuple[Array, ...]
) -> tuple[Array, ...]:
    """Return the state after ``turn`` was applied ``times`` times."""
    end: tuple[Array, ...] = jax.lax.fori_loop(0, times, lambda _, now: turn(now), state)
    return end
