"""What a participant insists on, whatever the coordinator would like."""

from __future__ import annotations

from dataclasses import dataclass

from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError
from koinon.privacy.hiding import Hiding
from koinon.privacy.secure_sum.roster import Roster


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What a participant insists on: below it, it takes no part."""

    cohort: int = 1  # clients asked in a round
    norm: float | None = None  # the largest norm an update may have after the channel; None: any
    noise: bool = False  # whether the channel must add noise
    rounds: int | None = None  # the most it answers, over all runs of its folder; None: any
    roster: Roster | None = None  # who may be in a secure sum with it

    def least(self, step: Hiding | None) -> int:
        """Return the fewest clients with which an update is added up: this floor, or what the app itself asks for if that is more."""
        return self.cohort if step is None else max(self.cohort, step.least)

    def check(self, wire: Wire) -> None:
        """Raise CompositionError if the channel does not keep to the floors."""
        if self.norm is not None and (wire.l2_bound is None or wire.l2_bound > self.norm):
            bounded = "does not bound them" if wire.l2_bound is None else f"bounds them by {wire.l2_bound:g}"
            raise CompositionError(
                f"This participant's updates must not be longer than {self.norm:g}, and the app's channel {bounded}. "
                f"Put Clip({self.norm:g}) into the channel, or change --largest-norm."
            )
        if self.roster is not None and wire.domain is Domain.CIPHERTEXT:
            raise CompositionError(
                f"This participant has a roster, and {wire.opaque_by} is decrypted by a key holder: the roster that counts is the key "
                "holder's (koinon keyholder --roster). Ask it, and leave out --roster here."
            )
        if self.roster is not None and wire.opaque_by is None:
            raise CompositionError(
                "This participant has a roster, and the app sends updates in the clear: a roster says who may be in a secure "
                "sum. Put SecureSum() into the channel, or leave out --roster."
            )
        if self.noise and wire.noise_by is None:
            raise CompositionError(
                "This participant asks for noise, and the app's channel adds none. Change the app or the floor."
            )
