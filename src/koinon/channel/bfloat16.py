"""Rounding to bfloat16: half the bytes, the range of float32, and no randomness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from koinon import tree
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError
from koinon.tree import Array, Tree

_INFINITY = 0x7F800000
_NOT_A_NUMBER = 0x7FC0
GROWTH = 1 + 2.0**-8
"""How much longer an update may become: the rounding error of a number with 8 significant bits."""


@dataclass(frozen=True)
class Bfloat16:
    """Send the upper 16 bits of every float32, rounded to nearest, half to even.

    A number is off by at most 1/256 of itself, below 2**-126 by at most 2**-134. What is beyond the largest
    bfloat16 becomes infinite, NaN stays NaN, and the exact sum refuses both. The server decodes each update before
    it is added. A clipping bound grows by 1/256 (proved for bounds above 1e-29; below it, numbers under 2**-126 could
    add more). Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training".
    """

    def check(self, wire: Wire) -> Wire:
        """Return integer facts, since what travels are bits; refuse what is not real."""
        if wire.domain is not Domain.REAL:
            raise CompositionError(
                f"{self!r} works on real numbers, but receives {wire.domain.name}. "
                "Move it before the step that made them so."
            )
        bound = None if wire.l2_bound is None else wire.l2_bound * GROWTH
        return replace(wire, domain=Domain.INTEGER, additive=False, l2_bound=bound, bits=16)

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return ``{"bfloat16": uint16}``, the numbers' bits in the shape of the leaf, for every leaf."""
        return tree.map(lambda x: {"bfloat16": _rounded(x)}, value), state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return float32 for every leaf: every bfloat16 is one."""
        if payload.keys() == {"bfloat16"} and not isinstance(payload["bfloat16"], Mapping):  # a layer may be named so
            return _widened(payload["bfloat16"])
        return {name: self.decode(payload[name], context) for name in payload}

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return 2 bytes a number."""
        return 2 * sum(sizes.values())


def _rounded(x: Array) -> Array:
    """Return the bits of the nearest bfloat16. Whole numbers alone, so that every array library agrees."""
    xp = tree.namespace(x)
    bits = xp.asarray(x, dtype=xp.float32).view(xp.uint32)
    magnitude = bits & xp.uint32(0x7FFFFFFF)  # without the sign no sum below can leave 32 bits
    even = (magnitude >> xp.uint32(16)) & xp.uint32(1)
    nearest = (magnitude + xp.uint32(0x7FFF) + even) >> xp.uint32(16)
    nearest = xp.where(magnitude > xp.uint32(_INFINITY), xp.uint32(_NOT_A_NUMBER), nearest)
    return (nearest | ((bits >> xp.uint32(16)) & xp.uint32(0x8000))).astype(xp.uint16)


def _widened(bits: Array) -> Array:
    xp = tree.namespace(bits)
    return (bits.astype(xp.uint32) << xp.uint32(16)).view(xp.float32)
