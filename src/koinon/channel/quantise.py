"""Quantisation: fewer bits a number, unbiased by stochastic rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from koinon import keys, tree
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, ConfigurationError
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Quantise:
    """Whole numbers of ``bits`` bits and one float32 scale a leaf, rounded at random without bias.

    The server decodes each update before it is added: the sum of codes has no one scale. A decoded update
    may be longer than the encoded one, so a clipping bound does not survive it.
    Alistarh et al., "QSGD", NeurIPS 2017.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise ConfigurationError(f"Quantise.bits must be a whole number from 2 to 8; found {self.bits!r}.")

    def check(self, wire: Wire) -> Wire:
        """Return integer facts; refuse what is not real."""
        if wire.domain is not Domain.REAL:
            raise CompositionError(
                f"{self!r} works on real numbers, but receives {wire.domain.name}. "
                "Move it before the step that made them so."
            )
        return replace(wire, domain=Domain.INTEGER, additive=False, l2_bound=None, bits=self.bits)

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return ``{"code": int8, "scale": float32}`` for every leaf."""
        flat = iter(range(len(tree.leaves(value))))
        return tree.map(lambda x: self._encode(x, keys.fold(context.key, next(flat))), value), state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return ``code * scale`` for every leaf."""
        if payload.keys() == {"code", "scale"} and not isinstance(payload["code"], Mapping):  # layers may be named so
            return payload["code"].astype("float32") * payload["scale"]
        return {name: self.decode(payload[name], context) for name in payload}

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return ``bits`` a number and 4 bytes a leaf."""
        return sum((count * self.bits + 7) // 8 + 4 for count in sizes.values())

    def _encode(self, x: Array, key: Array) -> dict[str, Any]:
        xp = tree.namespace(x)
        levels = float(2 ** (self.bits - 1) - 1)
        largest = xp.maximum(xp.max(xp.abs(x)), xp.float32(1e-30)) if x.size else xp.float32(1)
        scale = (largest * xp.float32(1 / levels)).astype(xp.float32)
        code = xp.floor(x / scale + keys.uniform(key, x.shape))
        return {"code": xp.clip(code, -levels, levels).astype(xp.int8), "scale": scale}
