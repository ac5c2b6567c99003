"""Distributed differential privacy: every client adds a part of the noise, and the coordinator sees no sum without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from koinon import exact, tree
from koinon.channel.central import FLOAT32, NoiseOnTheSum, noisy_sum
from koinon.channel.secure_sum import SecureSum
from koinon.core.algorithm import Algorithm
from koinon.core.ranges import positive, whole
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError, ConfigurationError, UnsupportedError
from koinon.privacy.mechanism import Adjacency, Event, Trust
from koinon.privacy.sampling import Participation
from koinon.privacy.secure_sum.neighbours import Assumptions, honest_survivors
from koinon.tree import Tree

if TYPE_CHECKING:
    from koinon.privacy.secure_sum.distributed import SharedNoise

_MOST_STEPS = 2**15  # of the noise's deviation: a client draws it from a table that grows with it


@dataclass(frozen=True)
class DistributedNoise(NoiseOnTheSum):
    """Let every client add a part of the noise before it masks, so that the sum itself is private from the coordinator.

    An update is rotated, rounded to whole numbers of which the clipping norm has ``steps`` or up to twice as many, and given
    Skellam noise. The parts of as many honest clients as must survive add up to a standard deviation of ``multiplier`` times
    the longest that one client's whole numbers can be; every further survivor adds more. It stands directly before
    `SecureSum`, and that last. What a compiled program hands on is the update: noise is added where it is masked.
    Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021.
    """

    multiplier: float
    steps: int = 2**12

    def __post_init__(self) -> None:
        positive(self, "multiplier")
        whole(self, "steps", least=2)
        if self.multiplier * self.steps > _MOST_STEPS:
            raise ConfigurationError(
                f"{self!r} would add noise of {self.multiplier * self.steps:,.0f} steps, and {_MOST_STEPS:,} are the most that are "
                f"drawn. Use steps={max(2, math.floor(_MOST_STEPS / self.multiplier))}: so much noise needs no finer ones."
            )

    def check(self, wire: Wire) -> Wire:
        """Return the facts with noise; refuse an update without a bound, codes, what is hidden, a second noise, noise without room."""
        if wire.domain is not Domain.REAL:
            raise CompositionError(
                f"{self!r} works on real numbers, but receives {wire.domain.name}. "
                "Move it before the step that made them so."
            )
        return noisy_sum(self, wire, self.multiplier)

    def check_algorithm(self, algorithm: Any) -> None:
        """Refuse a channel that does not mask what has this noise, at once and last."""
        place = algorithm.channel.index(self)
        after = algorithm.channel[place + 1 :]
        if len(after) != 1 or not isinstance(after[0], SecureSum):
            found = f"{', '.join(map(repr, after))} after it" if after else "nothing after it"
            raise CompositionError(
                f"{self!r} is noise of which one client's part is too little to be seen alone, and the channel has {found}. Put "
                "SecureSum() directly after it, and last; or use LocalGaussian, which is enough by itself."
            )

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes of as many float32 as a rotation makes of the update: the next power of two."""
        return 4 << max(0, sum(sizes.values()) - 1).bit_length()

    @property
    def trust(self) -> Trust:
        """Return that the cohort is trusted, and no party of it."""
        return Trust.SURVIVORS

    def event(self, participation: Participation) -> Event:
        """Return a round's event: no sampling is counted, since the coordinator knows who takes part."""
        return Event(self.multiplier, 1.0, Adjacency.ZERO_OUT, float(self.steps))

    def shared(self, bound: float, numbers: int, survivors: int) -> SharedNoise:
        """Return the noise on updates of so many ``numbers`` and an L2 norm of at most ``bound``, of honest ``survivors``."""
        try:
            from koinon.privacy.secure_sum.distributed import SharedNoise
        except ModuleNotFoundError as error:
            raise UnsupportedError(
                f"{self!r} needs {error.name}, which is not installed. Run: pip install 'koinon[privacy]'"
            ) from error
        norm = bound * (1 + FLOAT32)
        return SharedNoise(
            norm=norm,
            multiplier=self.multiplier,
            numbers=numbers,
            scale=math.ceil(math.log2(self.steps / norm)),
            survivors=survivors,
        )

    def stand_in(self, total: Tree, bound: float, clients: int, key: bytes) -> Tree:
        """Return the exact total (int64) of so many clients with the noise that all of them would have added."""
        leaves = tree.leaves(total)
        if not leaves:
            return total
        wide = np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in leaves]) / exact.SCALE
        noise = self.shared(bound, len(wide), honest_survivors(clients, Assumptions()))
        noisy = np.rint(noise.in_sum(wide, clients, key) * exact.SCALE).astype(np.int64)
        parts = np.split(noisy, np.cumsum([np.size(leaf) for leaf in leaves])[:-1])
        shaped = (part.reshape(np.shape(leaf)) for part, leaf in zip(parts, leaves, strict=True))
        return tree.fill(tree.structure(total), shaped)


def distributed_noise_of(algorithm: Algorithm) -> DistributedNoise | None:
    """Return the step by which clients add noise inside a secure sum, if the algorithm has it."""
    return next((step for step in algorithm.channel if isinstance(step, DistributedNoise)), None)
