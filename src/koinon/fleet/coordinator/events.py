"""What happens to a run's coordinator, and what it commands: the words of its machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Open:
    """A stage is to be asked for.

    ``draw`` are the sampler's clients; ``reserve`` others in the order they may replace them, to whom ``newcomers`` may
    be added; one that is ``closed`` to others is void at once when too few of these are left. Fewer updates that can be
    added than ``least`` are of no use, nor are any without those of ``essential``.
    A stage that ``lapses`` is void when too few have answered in time, where another waits for more. Nobody is asked
    before those of ``awaited`` (client -> name) are back, nor in one that ``begins`` a round before as many clients are here
    as the schedule says; in the round's other half they have only so long to come. ``asked``, ``target`` and ``answered`` are what an earlier
    process wrote down of this very stage.
    """

    draw: tuple[str, ...]
    reserve: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    target: int = 0
    answered: Mapping[str, bool] = field(default_factory=dict)  # client -> its update counts
    least: int = 1
    newcomers: bool = False
    closed: bool = False
    essential: tuple[str, ...] = ()
    lapses: bool = False
    awaited: Mapping[str, str] = field(default_factory=dict)
    begins: bool = True


@dataclass(frozen=True)
class Present:
    """A client has joined, or has spoken again after it was thought lost."""

    client: str


@dataclass(frozen=True)
class Answered:
    """A client's update is written down; ``counts`` says whether it can be added."""

    client: str
    counts: bool


@dataclass(frozen=True)
class Failed:
    """A client said that it cannot, and why."""

    client: str
    reason: str


@dataclass(frozen=True)
class Revoked:
    """A client may no longer take part."""

    client: str


@dataclass(frozen=True)
class Needed:
    """It has turned out how many updates are needed for any to be of use, and that the stage cannot be asked for again.

    ``lapses``: clients have masked, each once, for whoever else has; others' updates would be of no use.
    """

    least: int
    lapses: bool = False


@dataclass(frozen=True)
class Sealed:
    """A settled stage's sum is still closed: in this step of its opening ``silent`` have not spoken.

    ``refusals`` are the reasons of those who have said that they will not.
    """

    step: str
    silent: tuple[str, ...]
    refusals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unsealed:
    """A settled stage's sum is open."""


@dataclass(frozen=True)
class Pause:
    """The operator wants the run to rest."""


@dataclass(frozen=True)
class Resume:
    """The operator wants it to go on."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = (
    Open | Present | Answered | Failed | Revoked | Needed | Sealed | Unsealed | Pause | Resume | Tick
)  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """Tell these clients that there is something to do, after writing them and the target down."""

    clients: tuple[str, ...]
    target: int


@dataclass(frozen=True)
class Settle:
    """The stage is over: these clients' updates make it, and the others are lost for a reason."""

    clients: tuple[str, ...]
    lost: Mapping[str, str]


@dataclass(frozen=True)
class Void:
    """The stage is over and has no result, for want of ``silent``; ``lost`` are those with a reason of their own."""

    silent: tuple[str, ...]
    lost: Mapping[str, str]


@dataclass(frozen=True)
class Wake:
    """Hand in a Tick at this time (seconds of the same clock as ``now``)."""

    at: float


Command: TypeAlias = Ask | Settle | Void | Wake
