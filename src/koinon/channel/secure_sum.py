"""Secure sum: clients mask what they send, and only the sum of a round is ever seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from koinon.channel.hidden_sum import HiddenSum
from koinon.core.algorithm import Algorithm
from koinon.core.wire import Domain
from koinon.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, repr=False)
class SecureSum(HiddenSum):
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

    domain: ClassVar[Domain] = Domain.INTEGER
    fewest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        self._check_fields()
        if self.simulate not in ("ideal", "protocol"):
            raise ConfigurationError(f"SecureSum.simulate is 'ideal' or 'protocol'; found {self.simulate!r}.")

    @property
    def ideal(self) -> bool:
        """Whether a simulation computes what the messages would leave, and sends none."""
        return self.simulate == "ideal"

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

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes in a ring of 32 bits, or of 64 where the largest weight leaves too few for 64 clients."""
        wide = self.fraction_bits + (self.largest_weight - 1).bit_length() + 8 > 32
        return (8 if wide else 4) * max(sum(sizes.values()), value_bytes // 4)


def secure_sum_of(algorithm: Algorithm) -> SecureSum | None:
    """Return the step that hides single updates, if the algorithm has it."""
    return next((step for step in algorithm.channel if isinstance(step, SecureSum)), None)


def by_messages(algorithm: Algorithm) -> bool:
    """Return whether a simulated round is to run the real messages, so that all its clients have to be in one place."""
    step = secure_sum_of(algorithm)
    return step is not None and not step.ideal
