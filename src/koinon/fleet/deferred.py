"""An array that is computed each time it is read: arithmetic on it is kept, not done.

A server's state is settled leaf by leaf with it: the total of a whole model is never in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from koinon.tree import Array


class Deferred(NDArrayOperatorsMixin):
    """``function(*arguments)``, an array, computed by ``numpy.asarray`` and ``astype`` only."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function, self._arguments = function, arguments

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        given = (np.asarray(a) if isinstance(a, Deferred) else a for a in self._arguments)
        return np.asarray(self._function(*given), dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            return getattr(ufunc, method)(*(np.asarray(x) for x in inputs), **options)
        return Deferred(ufunc, inputs)

    def astype(self, dtype: Any) -> Array:
        """Compute it."""
        return np.asarray(self, dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, found by computing it."""
        return np.asarray(self).shape
