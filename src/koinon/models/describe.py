"""What a function is, as text that is the same in every process: its name, its source, what it closes over."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np


def describe_function(function: Callable[..., Any]) -> Any:
    """Return the name of a function with a digest of its source and of the values it was made with."""
    if isinstance(function, functools.partial):
        return {
            "partial": describe_function(function.func),
            "arguments": [_value(v) for v in function.args],
            "keywords": {name: _value(v) for name, v in sorted(function.keywords.items())},
        }
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        text = repr((code.co_code, code.co_names)) if code is not None else name
    closure = {}
    if inspect.isfunction(function):
        closure = {k: _value(v) for k, v in sorted(inspect.getclosurevars(function).nonlocals.items())}
    return {"function": name, "source": hashlib.sha256(text.encode()).hexdigest()[:16], "closure": closure}


def _value(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | None):
        return value
    if callable(value):
        return describe_function(value)
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
    return f"{type(value).__qualname__}"
