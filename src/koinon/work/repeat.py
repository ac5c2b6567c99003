"""A loop that is Python's among numpy arrays and part of the program where one is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

State = TypeVar("State")


def repeated(turn: Callable[[State], State], times: Any, state: State, namespace: Any) -> State:
    """Return the state after ``turn`` was applied ``times`` times, a whole number or an array of one.

    ``namespace`` is that of the arrays; a state keeps its structure, shapes and types.
    """
    if namespace is np:
        for _ in range(int(times)):
            state = turn(state)
        return state
    from koinon.work.repeat_jax import repeat  # unrolled, a program would be slower, and longer in the making

    return repeat(turn, times, state)
