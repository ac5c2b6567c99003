"""Secure sum: clients mask what they send, and only the sum of a round is ever seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from koinon import exact
from koinon.channel.hidden_sum import on_grid, refuse_what_cannot_be_hidden, short
from koinon.core.algorithm import Algorithm
from koinon.core.ranges import whole
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.errors import ConfigurationError
from koinon.tree import Tree


@dataclass(frozen=True, kw_only=True, repr=False)
class SecureSum:
    """Show the server only the sum of a round's updates, weights and metric sums.

    Numbers are cut to multiples of ``2**-fraction_bits``, towards 0, so that no norm grows. Weights are whole numbers up
    to ``largest_weight``: a client that weighs more does not take part. There is room for ``figures`` metric sums. Fewer
    than ``least`` clients are never added up. What travels is masked in the narrowest ring of 16, 32 or 64 bits in which no sum of the cohort wraps (Bonawitz et al., "Practical
    Secure Aggregation", CCS 2017). In simulation nothing is masked: the very sum that the masks would leave is computed, and
    figures of single clients are dropped. ``simulate="protocol"`` runs the real messages in memory, to the same bits.
    """

    fraction_bits: int = 20
    largest_weight: int = 4096
    least: int = 3
    figures: int = 1024
    simulate: str = "ideal"

    def __post_init__(self) -> None:
        whole(self, "fraction_bits")
        whole(self, "largest_weight")
        whole(self, "least", least=3)
        whole(self, "figures")
        if self.simulate not in ("ideal", "protocol"):
            raise ConfigurationError(f"SecureSum.simulate is 'ideal' or 'protocol'; found {self.simulate!r}.")
        if self.fraction_bits > exact.FRACTION_BITS or self.largest_weight >= exact.LARGEST_WEIGHT:
            raise ConfigurationError(
                f"SecureSum has at most {exact.FRACTION_BITS} fraction_bits and weights below {exact.LARGEST_WEIGHT}; "
                f"found {self!r}."
            )

    def __repr__(self) -> str:
        return short(self)

    def check(self, wire: Wire) -> Wire:
        """Return the facts of hidden integers; refuse what is unbounded, coded or hidden already."""
        refuse_what_cannot_be_hidden(self, wire)
        return replace(wire, domain=Domain.INTEGER, opaque_by=repr(self))

    def protection(self, *, roster: bool) -> str:
        """Return whom the masks protect from whom."""
        if not roster:
            return (
                f"{self!r} protects against an honest-but-curious server only: without a signed roster (koinon roster) a "
                "coordinator can invent members and read what it takes from the others"
            )
        return (
            f"{self!r} protects updates from the coordinator and up to a third of a cohort together, among the members of a "
            "signed roster"
        )

    def init(self, value: Tree) -> Tree:
        """Return nothing."""
        return {}

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return the update on the grid of the sum, in float32."""
        return on_grid(value, self.fraction_bits), state

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the payload: nothing is undone."""
        return payload

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes in a ring of 32 bits, or of 64 where the largest weight leaves too few for 64 clients."""
        wide = self.fraction_bits + (self.largest_weight - 1).bit_length() + 8 > 32
        return (8 if wide else 4) * sum(sizes.values())


def secure_sum_of(algorithm: Algorithm) -> SecureSum | None:
    """Return the step that hides single updates, if the algorithm has it."""
    return next((step for step in algorithm.channel if isinstance(step, SecureSum)), None)
