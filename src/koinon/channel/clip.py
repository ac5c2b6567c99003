"""Clipping: bound how far one client can move the sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from koinon import tree
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, ConfigurationError
from koinon.tree import Tree


@dataclass(frozen=True)
class Clip:
    """Scale an update down to an L2 norm of at most ``norm``, over all its leaves together.

    A value that is not finite stays so, and is refused by the exact sum. Abadi et al., CCS 2016.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.norm, float | int) and 0 < self.norm < float("inf")):
            raise ConfigurationError(f"Clip.norm must be a number above 0; found {self.norm!r}.")

    def check(self, wire: Wire) -> Wire:
        """Return the facts with a bound; refuse numbers that are no longer real or no longer visible."""
        if wire.domain is not Domain.REAL:
            raise CompositionError(
                f"{self!r} works on real numbers, but receives {wire.domain.name}. "
                "Move it before the step that made them so."
            )
        return replace(wire, l2_bound=float(self.norm))

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return ``value * min(1, norm / |value|)``."""
        square = tree.sum_of_squares(value)
        xp = tree.namespace(square)
        tiny = xp.float32(1e-30)
        factor = xp.minimum(xp.float32(1), self.norm / xp.sqrt(xp.maximum(square, tiny)))
        return tree.scale(value, factor), state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the payload: clipping is not undone."""
        return payload

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes unchanged."""
        return value_bytes
