"""Aggregators that measure every update by one that the server trusts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Rooted(Protocol):
    """An aggregator of single updates that is given a trusted client's update first."""

    @property
    def trusted(self) -> str:
        """The client's name."""

    def place(self, names: Sequence[str]) -> int:
        """Return where the trusted client stands among ``names``; raises CompositionError if it does not."""
