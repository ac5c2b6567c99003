"""Clipping to a norm that nobody has to guess: it follows a quantile of the clients' norms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from koinon import tree
from koinon.core.protocols import Needs
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError
from koinon.privacy.quantile import CLIPPING, FollowsNorm, QuantileNorm
from koinon.tree import Tree

_TINY = 1e-30


@dataclass(frozen=True)
class AdaptiveClip:
    """Scale an update down to the round's norm, in units of that norm, and say whether it was within.

    The server keeps the norm and multiplies by it; factories such as ``fedavg(channel=...)`` see to that. Every client
    weighs 1: a quantile of clients is followed. A value that is not finite stays so, and is refused by the exact sum.
    """

    quantile: QuantileNorm = field(default_factory=QuantileNorm)

    def check(self, wire: Wire) -> Wire:
        """Return the facts with a bound, in units of the norm; refuse numbers that are no longer real."""
        if wire.domain is not Domain.REAL:
            raise CompositionError(
                f"{self!r} works on real numbers, but receives {wire.domain.name}. "
                "Move it before the step that made them so."
            )
        return replace(wire, l2_bound=self.quantile.bound)

    def check_algorithm(self, algorithm: Any) -> None:
        """Refuse a server that does not follow this norm, and an aggregate of the answers that is not their mean."""
        server = algorithm.server
        if algorithm.aggregator.needs is not Needs.SUM:
            raise CompositionError(
                f"{self!r} follows the mean of all clients' answers, and {algorithm.aggregator!r} makes another number of "
                "them. Use Mean(), or Clip with a norm of your own."
            )
        if not isinstance(server, FollowsNorm) or server.norm != self.quantile:
            raise CompositionError(
                f"{self!r} clips to a norm that the server follows, but {server!r} follows none of it. Give {self!r} to "
                "the factory (fedavg(channel=...)), or use FollowQuantile(server, norm)."
            )

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return the update over the norm, no longer than 1, with the client's answer beside it."""
        square = tree.sum_of_squares(value)
        xp = tree.namespace(square)
        norm = xp.asarray(context.broadcast[CLIPPING]["norm"], dtype=xp.float32)
        length = xp.sqrt(xp.maximum(square, xp.float32(_TINY)))
        answer = xp.where(length <= norm, xp.float32(0.5), xp.float32(-0.5)) * self.quantile.share
        clipped = tree.scale(value, xp.minimum(1 / norm, 1 / length))
        return {**clipped, CLIPPING: {"norm": answer.astype(xp.float32)}}, state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the payload: the server multiplies the sum."""
        return payload

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes unchanged: the answer stands where the norm came in the broadcast."""
        return value_bytes
