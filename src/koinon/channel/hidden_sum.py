"""What the steps share under which single updates are hidden: the grid of their numbers, and what they refuse."""

from __future__ import annotations

from abc import ABC
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any, ClassVar

from koinon import exact, tree
from koinon.core.ranges import whole
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, ConfigurationError, UnsupportedError
from koinon.tree import Array, Tree


class HiddenSum(ABC):
    """What every step that hides single updates has in common: updates leave on a grid, and nothing is undone after."""

    domain: ClassVar[Domain]
    fewest: ClassVar[int]
    """The least cohort that may be asked for."""
    fraction_bits: int
    largest_weight: int
    least: int
    figures: int

    def __repr__(self) -> str:
        return short(self)

    def _check_fields(self) -> None:
        whole(self, "fraction_bits")
        whole(self, "largest_weight")
        whole(self, "least", least=self.fewest)
        whole(self, "figures")
        if self.fraction_bits > exact.FRACTION_BITS or self.largest_weight >= exact.LARGEST_WEIGHT:
            raise ConfigurationError(
                f"{type(self).__name__} has at most {exact.FRACTION_BITS} fraction_bits and weights below "
                f"{exact.LARGEST_WEIGHT}; found {self!r}."
            )

    def require(self) -> None:
        """Raise UnsupportedError unless what hides an update is installed where it is made."""
        if find_spec("cryptography") is None:
            raise UnsupportedError(
                f"{self!r} masks updates by the package cryptography, which is not installed. Run: pip install 'koinon[privacy]'"
            )

    def check(self, wire: Wire) -> Wire:
        """Return the facts of hidden numbers; refuse what is unbounded, coded or hidden already."""
        refuse_what_cannot_be_hidden(self, wire)
        return replace(wire, domain=self.domain, opaque_by=repr(self))

    @property
    def ideal(self) -> bool:
        """Whether a simulation computes what the messages would leave, and sends none."""
        return True

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return the update on the grid of the sum, in float32."""
        return on_grid(value, self.fraction_bits), state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the payload: nothing is undone."""
        return payload


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
