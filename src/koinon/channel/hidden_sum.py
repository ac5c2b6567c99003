"""What the steps share under which single updates are hidden: the grid of their numbers, and what they refuse."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from koinon import tree
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError
from koinon.tree import Array, Tree


def on_grid(value: Tree, fraction_bits: int) -> Tree:
    """Return float32 numbers cut to multiples of ``2**-fraction_bits``, towards 0, so that no norm grows."""
    factor = 2.0**fraction_bits

    def leaf(x: Array) -> Array:
        xp = tree.namespace(x)
        return xp.trunc(x * xp.float32(factor)) * xp.float32(1 / factor)

    return tree.map(leaf, value)


def refuse_what_cannot_be_hidden(step: object, wire: Wire) -> None:
    """Raise CompositionError unless a step receives bounded numbers that can be added, and hides them first."""
    if wire.opaque_by is not None:
        raise CompositionError(f"{step!r} follows {wire.opaque_by}: one of the two is enough. Drop the other.")
    if wire.domain is not Domain.REAL or not wire.additive:
        raise CompositionError(
            f"{step!r} adds up numbers, but receives {wire.domain.value} ones that mean something one by one only. Drop the "
            "codec before it: what is hidden takes no less room for it."
        )
    if wire.l2_bound is None:
        raise CompositionError(
            f"{step!r} needs a bounded update, or its sum could wrap. Put Clip before it, after all that may lengthen "
            "an update."
        )


def short(step: Any) -> str:
    """Return a step as one would write it: without the fields that have their defaults."""
    own = (field for field in fields(step) if getattr(step, field.name) != field.default)
    return f"{type(step).__name__}({', '.join(f'{field.name}={getattr(step, field.name)!r}' for field in own)})"
