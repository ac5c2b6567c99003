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


class Trust(Enum):
    """Whom a client has to trust, and with what."""

    COORDINATOR = "the coordinator sees each update without noise and is trusted to add it"
    NOBODY = "nobody: each client adds the noise itself"


@dataclass(frozen=True)
class Event:
    """One release: a Gaussian of ``multiplier`` times the sensitivity, over a Poisson sample of ``rate``.

    ``multiplier`` is above 0. A ``rate`` of 1 is no sampling, or sampling that is not counted.
    """

    multiplier: float
    rate: float
    adjacency: Adjacency

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {**asdict(self), "adjacency": self.adjacency.value}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Event:
        """Return the event of :meth:`to_json`."""
        return cls(float(found["multiplier"]), float(found["rate"]), Adjacency(found["adjacency"]))


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
