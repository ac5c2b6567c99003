"""What a step that adds noise tells the accountant, and how a central one releases a sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias, runtime_checkable

from koinon.core.protocols import Private
from koinon.privacy.sampling import Participation
from koinon.tree import Array, Tree

Normals: TypeAlias = Callable[[int], Array]
"""Returns that many independent standard normals in float64, fresh ones at every call."""


@dataclass(frozen=True)
class Noise:
    """A run's noise: the normals of any round, and what a mechanism keeps of earlier rounds, which it can make anew."""

    normals: Callable[[int], Normals]
    kept: dict[int, Array] = field(default_factory=dict)


class Adjacency(Enum):
    """Which two data sets must look alike."""

    ADD_OR_REMOVE = "add or remove one"
    REPLACE_ONE = "replace one"
    ZERO_OUT = "send zeros for one"


class Trust(Enum):
    """Whom a client has to trust, and with what."""

    COORDINATOR = "the coordinator sees each update without noise and is trusted to add it"
    NOBODY = "nobody: each client adds the noise itself"
    SURVIVORS = (
        "no single party: each client adds a part of the noise before it masks, and the parts of the honest clients are "
        "enough as long as more than two thirds of a cohort survive and at most a fifth of it works with the coordinator"
    )


@dataclass(frozen=True)
class Event:
    """One release: noise of ``multiplier`` times the sensitivity, over a Poisson sample of ``rate``.

    ``multiplier`` is above 0. A ``rate`` of 1 is no sampling, or sampling that is not counted. The noise is Gaussian, or,
    with ``steps``, Skellam's on whole numbers: then the sensitivity is a vector of whole numbers at least that long.
    """

    multiplier: float
    rate: float
    adjacency: Adjacency
    steps: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON; without ``steps`` for a Gaussian."""
        found = {**asdict(self), "adjacency": self.adjacency.value}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Event:
        """Return the event of :meth:`to_json`."""
        steps = float(found["steps"]) if "steps" in found else None
        return cls(float(found["multiplier"]), float(found["rate"]), Adjacency(found["adjacency"]), steps)


@runtime_checkable
class Mechanism(Private, Protocol):
    """A channel step whose noise can be accounted. It is a private step too, so every client weighs 1 under it."""

    @property
    def trust(self) -> Trust:
        """Whom it protects from whom."""

    def event(self, participation: Participation) -> Event:
        """Return what one round costs a client that is drawn so."""


@runtime_checkable
class CentralMechanism(Mechanism, Protocol):
    """A mechanism of the server: once a round, on the sum."""

    def release(self, total: Tree, bound: float, round: int, noise: Noise) -> Tree:
        """Return a round's exact total (int64) with noise for clients of an L2 norm of at most ``bound``."""


@runtime_checkable
class DistributedMechanism(Mechanism, Protocol):
    """A mechanism of which every client adds a part, inside a secure sum."""

    def stand_in(self, total: Tree, bound: float, clients: int, key: bytes) -> Tree:
        """Return the exact total (int64) of so many clients with the noise that all of them would have added.

        For simulations without messages. ``bound`` is the L2 norm of an update at most, ``key`` 32 secret bytes for this
        round alone.
        """
