"""A loop inside a compiled JAX program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax

State = TypeVar("State")


def repeat(turn: Callable[[State], State], times: Any, state: State) -> State:
    """Return the state after ``turn`` was applied ``times`` times, a whole number that may be traced."""
    end: State = jax.lax.fori_loop(0, times, lambda _, now: turn(now), state)
    return end
