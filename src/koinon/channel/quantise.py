"""Quantisation: fewer bits a number, unbiased by stochastic rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from koinon import keys, tree
from koinon.core.ranges import whole_or_none
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, ConfigurationError
from koinon.tree import Array, Tree

_SMALLEST = 1e-30
"""The largest number of a block counts as at least this: a step is then never zero and never subnormal."""


@dataclass(frozen=True)
class Quantise:
    """Whole numbers of ``bits`` bits, and one float32 scale a leaf or every ``block`` numbers, rounded at random.

    A step is the largest number of the block over ``2**(bits - 1) - 1``. A number is off by less than a step, and in the
    mean by nothing (to 2**-17 of a step, the resolution of the draw). One large number coarsens its own block only.
    The server decodes each update before it is added: the sum of codes has no one scale. A decoded update
    may be longer than the encoded one, so a clipping bound does not survive it.
    Alistarh et al., "QSGD", NeurIPS 2017, whose buckets are these blocks.
    """

    bits: int = 8
    block: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise ConfigurationError(f"Quantise.bits must be a whole number from 2 to 8; found {self.bits!r}.")
        whole_or_none(self, "block")

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
        """Return ``{"code": int8, "scale": float32}`` for every leaf.

        A code has the shape of its leaf; the scale is one number, or ``[blocks]`` where there are blocks.
        """
        flat = iter(range(len(tree.leaves(value))))
        return tree.map(lambda x: self._encode(x, keys.fold(context.key, next(flat))), value), state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return ``code * scale`` for every leaf."""
        if payload.keys() == {"code", "scale"} and not isinstance(payload["code"], Mapping):  # layers may be named so
            code = payload["code"]
            rows = self._rows(code.astype("float32")) * payload["scale"].reshape(-1, 1)
            return rows.reshape(-1)[: code.size].reshape(code.shape)
        return {name: self.decode(payload[name], context) for name in payload}

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return a byte a number, however few of its ``bits`` are used, and 4 bytes a scale."""
        return sum(count + 4 * self._divided(count)[0] for count in sizes.values())

    def _encode(self, x: Array, key: Array) -> dict[str, Any]:
        xp = tree.namespace(x)
        levels = float(2 ** (self.bits - 1) - 1)
        rows = self._rows(x)
        largest = xp.maximum(xp.max(xp.abs(rows), axis=1), xp.float32(_SMALLEST))
        scale = (largest * xp.float32(1 / levels)).astype(xp.float32)
        steps = (rows / scale.reshape(-1, 1)).reshape(-1)[: x.size].reshape(x.shape)
        code = xp.clip(xp.floor(steps + keys.uniform(key, x.shape)), -levels, levels).astype(xp.int8)
        return {"code": code, "scale": scale.reshape(()) if self.block is None else scale}

    def _rows(self, x: Array) -> Array:
        """Return the numbers of a leaf in one row a scale, the last one filled up with zeros."""
        rows, width = self._divided(x.size)
        flat = x.reshape(-1)
        if rows * width > x.size:
            flat = tree.namespace(x).pad(flat, (0, rows * width - x.size))
        return flat.reshape(rows, width)

    def _divided(self, count: int) -> tuple[int, int]:
        """Return how many scales a leaf of ``count`` numbers has, and for how many numbers each; at least one."""
        width = max(1, count if self.block is None else min(count, self.block))
        return max(1, -(-count // width)), width
