"""An array that is computed block by block, each time it is read: arithmetic on it is kept, not done.

A server's state is settled with it: of a whole model's total, and of every step of arithmetic on it, no more is in
memory than a block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from koinon.tree import Array

BLOCK = 1 << 16


class Deferred(NDArrayOperatorsMixin):
    """An array of a shape whose elements ``source`` gives: a slice of the flat array -> a new array of them."""

    def __init__(self, shape: tuple[int, ...], source: Callable[[slice], Array]) -> None:
        self.shape, self._source = shape, source

    def astype(self, dtype: Any) -> Array:
        """Compute it."""
        out = np.empty(self.shape, dtype)
        flat = out.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            part = slice(start, min(start + BLOCK, flat.size))
            np.copyto(flat[part], self._source(part), casting="unsafe")
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.astype(self._source(slice(0, 0)).dtype if dtype is None else dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if (
            method != "__call__"
            or options.keys() - {"dtype"}
            or any(np.shape(x) not in ((), self.shape) for x in inputs)
        ):
            return getattr(ufunc, method)(*(np.asarray(x) for x in inputs), **options)
        return Deferred(self.shape, partial(_block, partial(ufunc, **options), inputs))


def _block(function: Callable[..., Array], inputs: tuple[Any, ...], part: slice) -> Array:
    """Return a block of a function's result from the same blocks of its inputs."""
    return function(*(_of(x, part) for x in inputs))


def _of(value: Any, part: slice) -> Any:
    if isinstance(value, Deferred):
        return value._source(part)
    return value if np.shape(value) == () else value.reshape(-1)[part]
