"""Figures for JSON, which has no word for one that is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Return mappings, lists and figures as JSON can say them: a figure that is not finite becomes None.

    >>> finite({"loss": float("nan"), "by round": (1, float("inf"))})
    {'loss': None, 'by round': [1, None]}
    """
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
