"""Secure sum: clients mask what they send, and only the sum of a round is ever seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from koinon.channel.hidden_sum import HiddenSum
from koinon.core.algorithm import Algorithm
from koinon.core.wire import Domain
from koinon.errors import ConfigurationError
from koinon.privacy.secure_sum.layout import Layout


@dataclass(frozen=True, kw_only=True, repr=False)
class SecureSum(HiddenSum):
    """Show the server only the sum of a round's updates, weights and metric sums.

    Numbers are cut to multiples of ``2**-fraction_bits``, towards 0, so that no norm grows. Weights are whole numbers up
    to ``largest_weight``: a client that weighs more does not take part. There is room for ``figures`` metric sums. Fewer
    than ``least`` clients are never added up. What travels is masked in the least ring in which no sum of the cohort wraps,
    in whole bytes (Bonawitz et al., "Practical Secure Aggregation", CCS 2017). In simulation nothing is masked: the very sum
    that the masks would leave is computed, and figures of single clients are dropped. ``simulate="protocol"`` runs the real
    messages in memory, to the same bits.
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
            f"{self!r} protects updates from the coordinator and up to a third of a cohort together, a fifth of 100 or more, among "
            "the members of a signed roster"
        )

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes of as many numbers of 64 clients' ring, for a norm of 1 and the largest weight."""
        numbers, scale = max(1, sum(sizes.values()), value_bytes // 4), self.fraction_bits
        largest = self.largest_weight
        return Layout.of_scale(numbers, 0, scale=scale, cohort=64, bound=1.0, largest_weight=largest).body_bytes


def secure_sum_of(algorithm: Algorithm) -> SecureSum | None:
    """Return the step that hides single updates, if the algorithm has it."""
    return next((step for step in algorithm.channel if isinstance(step, SecureSum)), None)


def by_messages(algorithm: Algorithm) -> bool:
    """Return whether a simulated round is to run the real messages, so that all its clients have to be in one place."""
    step = secure_sum_of(algorithm)
    return step is not None and not step.ideal
