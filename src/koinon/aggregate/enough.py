"""Saying that too few updates came for what an aggregator promises."""

from __future__ import annotations

from typing import Any

from koinon.errors import CompositionError


def enough(aggregator: Any, found: int, least: int, *, instead: str) -> int:
    """Return ``found``, or raise CompositionError where it is less than ``least``; ``instead`` is what to do."""
    if found < least:
        raise CompositionError(f"{aggregator!r} needs at least {least} updates, but has {found}. {instead}")
    return found
