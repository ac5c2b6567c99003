"""The coordinator of one run without sockets, clock or disk: ``handle(state, event, now) -> (state, commands)``.

A stage (the training or the judging half of a round) is open until enough clients have answered or its time is up.
Nothing here waits: what is to happen later is a command to be woken. Whoever feeds it events writes down what must
not be lost before it hands them in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeAlias

from koinon.core.algorithm import Synchronous
from koinon.round.deadlines import deadline_seconds

_KEPT_DURATIONS = 64


class Standing(Enum):
    """Where a client stands in the open stage."""

    ASKED = "asked"
    ARRIVED = "arrived"  # its update is here and counts
    REFUSED = "refused"  # its update is here and cannot be added
    FAILED = "failed"  # it said that it cannot
    REVOKED = "revoked"


_ANSWERED = (Standing.ARRIVED, Standing.REFUSED)


@dataclass(frozen=True)
class Open:
    """A stage is to be asked for.

    ``draw`` are the sampler's clients; ``reserve`` others in the order they may replace them, to whom ``newcomers`` may
    be added. Fewer updates that can be added than ``least`` are of no use, nor are any without those of ``essential``.
    ``asked``, ``target`` and ``answered`` are what an earlier process wrote down of this very stage.
    """

    draw: tuple[str, ...]
    reserve: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    target: int = 0
    answered: Mapping[str, bool] = field(default_factory=dict)  # client -> its update counts
    least: int = 1
    newcomers: bool = False
    essential: tuple[str, ...] = ()


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
    """It has turned out how many updates are needed at least for any to be of use."""

    least: int


@dataclass(frozen=True)
class Pause:
    """The operator wants the run to rest."""


@dataclass(frozen=True)
class Resume:
    """The operator wants it to go on."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Open | Present | Answered | Failed | Revoked | Needed | Pause | Resume | Tick


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
class Wake:
    """Hand in a Tick at this time (seconds of the same clock as ``now``)."""

    at: float


Command: TypeAlias = Ask | Settle | Wake


@dataclass(frozen=True)
class Stage:
    """One open stage."""

    draw: tuple[str, ...]
    reserve: tuple[str, ...]
    least: int = 1
    newcomers: bool = False
    essential: tuple[str, ...] = ()
    standings: Mapping[str, Standing] = field(default_factory=dict)  # of everybody who was asked
    reasons: Mapping[str, str] = field(default_factory=dict)
    target: int = 0  # so many answers are all that is wanted
    attempt: int = 0  # 0: nobody has been asked yet
    began: float | None = None  # None: how long an answer takes cannot be told, as the run rested or began anew
    deadline: float | None = None  # None: open until enough have answered

    def of(self, *standings: Standing) -> tuple[str, ...]:
        """Return the clients that stand so, sorted."""
        return tuple(sorted(client for client, standing in self.standings.items() if standing in standings))


@dataclass(frozen=True)
class State:
    """All that a run's coordinator knows of its clients."""

    terms: Synchronous
    present: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()  # for good
    stage: Stage | None = None
    paused: bool = False
    durations: tuple[float, ...] = ()

    @property
    def waits_for(self) -> str | None:
        """What stops the run from going on, for people; None while it is waiting for nobody."""
        if self.paused:
            return "the operator: the run is paused. koinon resume lets it go on"
        if self.stage is None:
            return None
        if self.stage.attempt == 0:
            missing = self.terms.clients - len(self.present)
            if missing <= 0 and not self.present.issuperset(self.stage.essential):
                return "the client by whose update all others are measured: it is not here"
            if missing <= 0:
                return "one of the clients that were drawn: none of them is here"
            return f"{missing} more {_clients(missing)} to join: {len(self.present)} of {self.terms.clients} are here"
        answered = len(self.stage.of(*_ANSWERED))
        refused = len(self.stage.of(Standing.REFUSED))
        if self.held:
            missing = max(_quorum(self) - answered, self.stage.least - answered + refused)
            if missing <= 0:
                return "an update that can be added of the client by whose update all others are measured"
            of_no_use = f", {refused} of them with what cannot be added" if refused else ""
            return f"{missing} more {_clients(missing)}: {answered} have answered{of_no_use}, and {_quorum(self)} must"
        return f"{len(self.stage.of(Standing.ASKED))} of {len(self.stage.standings)} answers"

    @property
    def held(self) -> bool:
        """Whether the run rests until somebody comes back or the operator says so."""
        stage = self.stage
        return self.paused or (stage is not None and (stage.attempt == 0 or stage.deadline is None))


def handle(state: State, event: Event, now: float) -> tuple[State, tuple[Command, ...]]:
    """Return the state after an event and what is to be done, in this order."""
    return _advance(_REACTIONS[type(event)](state, event, now), now)


def _opened(state: State, event: Open, now: float) -> State:
    assert state.stage is None, "a stage is opened when the one before is settled"
    stage = Stage(event.draw, event.reserve, event.least, event.newcomers, event.essential)
    if event.asked:  # an earlier process had begun it: nobody is forgotten, and everybody has the whole time again
        known = {client: Standing.ASKED for client in event.asked}
        known |= {c: Standing.ARRIVED if counts else Standing.REFUSED for c, counts in event.answered.items()}
        deadline = now + _seconds(state)
        stage = replace(stage, standings=known, target=event.target, attempt=1, deadline=deadline)
        for client in state.revoked.intersection(known):
            stage = _without(stage, client)
    return replace(state, stage=stage)


def _appeared(state: State, event: Present, now: float) -> State:
    stage, client = state.stage, event.client
    if stage is not None and stage.newcomers and client not in (*stage.draw, *stage.reserve):
        stage = replace(stage, reserve=(*stage.reserve, client))
    if stage is not None and stage.deadline is None and stage.standings.get(client) is Standing.REFUSED:
        standings = {**stage.standings, client: Standing.FAILED}  # the run rests: it may have been mended
        stage = replace(stage, standings=standings, reasons={**stage.reasons, client: "its update could not be added"})
    return replace(state, stage=stage, present=(state.present | {client}) - state.revoked)


def _answered(state: State, event: Answered, now: float) -> State:
    stage = state.stage
    if stage is None or stage.standings.get(event.client) not in (Standing.ASKED, Standing.FAILED):
        return state
    standing = Standing.ARRIVED if event.counts else Standing.REFUSED
    reasons = {client: why for client, why in stage.reasons.items() if client != event.client}
    stage = replace(stage, standings={**stage.standings, event.client: standing}, reasons=reasons)
    durations = state.durations
    if stage.deadline is not None and stage.began is not None:  # what comes after the time is up says nothing
        durations = (*durations, now - stage.began)[-_KEPT_DURATIONS:]
    return replace(state, stage=stage, durations=durations, present=state.present | {event.client})


def _failed(state: State, event: Failed, now: float) -> State:
    stage = state.stage
    if stage is None or stage.standings.get(event.client) is not Standing.ASKED:
        return state
    standings = {**stage.standings, event.client: Standing.FAILED}
    stage = replace(stage, standings=standings, reasons={**stage.reasons, event.client: f"failed: {event.reason}"})
    return replace(state, stage=stage, present=state.present - {event.client})


def _revoked(state: State, event: Revoked, now: float) -> State:
    gone = {event.client}
    state = replace(state, present=state.present - gone, revoked=state.revoked | gone)
    if state.stage is None or event.client not in state.stage.standings:
        return state
    return replace(state, stage=_without(state.stage, event.client))


def _without(stage: Stage, client: str) -> Stage:
    """Return the stage without waiting for a client that was sent away."""
    standings = {**stage.standings, client: Standing.REVOKED}
    left = sum(standing is not Standing.REVOKED for standing in standings.values())
    target = max(stage.least, min(stage.target, left))
    return replace(
        stage, standings=standings, reasons={**stage.reasons, client: "revoked by the operator"}, target=target
    )


def _needed(state: State, event: Needed, now: float) -> State:
    return state if state.stage is None else replace(state, stage=replace(state.stage, least=event.least))


def _paused(state: State, event: Pause, now: float) -> State:
    return replace(state, paused=True)


def _resumed(state: State, event: Resume, now: float) -> State:
    stage = state.stage
    if state.paused and stage is not None and stage.deadline is not None:
        stage = replace(stage, began=None, deadline=now + _seconds(state))
    return replace(state, paused=False, stage=stage)


def _ticked(state: State, event: Tick, now: float) -> State:
    return state


_REACTIONS: Mapping[type, Callable[[State, Any, float], State]] = {
    Open: _opened, Present: _appeared, Answered: _answered, Failed: _failed,
    Revoked: _revoked, Needed: _needed, Pause: _paused, Resume: _resumed, Tick: _ticked,
}  # fmt: skip


def _advance(state: State, now: float) -> tuple[State, tuple[Command, ...]]:
    """Take every step that the state allows now."""
    stage = state.stage
    if stage is None or state.paused:
        return state, ()
    if stage.attempt == 0 and len(state.present) < state.terms.clients:
        return state, ()
    if stage.attempt == 0 and not state.present.issuperset(stage.essential):
        return state, ()
    if not stage.draw or state.revoked.issuperset((*stage.draw, *stage.reserve)):
        return _settle(state, stage)  # an empty cohort, as coins may fall, or one of which nobody is left
    if stage.attempt == 0:
        return _begin(state, stage, now)
    answered, pending = len(stage.of(*_ANSWERED)), stage.of(Standing.ASKED)
    over = stage.deadline is None or now >= stage.deadline
    if (answered >= stage.target or (answered >= _quorum(state) and (over or not pending))) and _of_use(state, stage):
        return _settle(state, stage)
    if stage.deadline is None:
        back = [c for c in stage.of(Standing.FAILED) if c in state.present] + _others(state, stage)
        return _ask_again(state, stage, back) if back else (state, ())
    if over or not pending:
        return _retry(state, stage, now)
    return state, (Wake(stage.deadline),)


def _of_use(state: State, stage: Stage) -> bool:
    """Return whether a round can be made of what came, or whether nothing that can be added comes from anybody."""
    arrived = stage.of(Standing.ARRIVED)
    if not arrived:
        return not stage.of(Standing.ASKED, Standing.FAILED) and not _others(state, stage)
    return len(arrived) >= stage.least and set(arrived).issuperset(stage.essential)


def _begin(state: State, stage: Stage, now: float) -> tuple[State, tuple[Command, ...]]:
    """Ask the drawn clients that are here, and others in the place of those that are not."""
    wanted = math.ceil(max(stage.least, len(stage.draw)) * state.terms.over_selection)
    here = _here(state, stage)[:wanted]
    if not here:
        return state, ()
    stage = replace(stage, target=max(stage.least, min(len(stage.draw), len(here))))
    return _asked(state, stage, here, now, attempt=1)


def _retry(state: State, stage: Stage, now: float) -> tuple[State, tuple[Command, ...]]:
    """Ask again, replacing who did not answer; after the last time stay open until somebody comes back."""
    silent = stage.of(Standing.ASKED)
    state = replace(state, present=state.present.difference(silent))
    again = [*silent, *stage.of(Standing.FAILED), *_others(state, stage)]
    if stage.attempt > state.terms.retries or not again:
        return _advance(replace(state, stage=replace(stage, deadline=None)), now)
    return _asked(state, stage, again, now, attempt=stage.attempt + 1)


def _others(state: State, stage: Stage) -> list[str]:
    """Return who can take the place of those that are missing and not expected: here, and not asked so far."""
    expected = state.present.intersection(stage.of(Standing.ASKED))
    short = max(stage.target - len(stage.of(*_ANSWERED)), stage.least - len(stage.of(Standing.ARRIVED)))
    here = _here(state, stage)
    return here[: max(short - len(expected), sum(client in stage.essential for client in here))]


def _here(state: State, stage: Stage) -> list[str]:
    """Return who is here and was not asked, in the order in which they are to be."""
    order = dict.fromkeys((*stage.essential, *stage.draw, *stage.reserve))
    return [client for client in order if client in state.present and client not in stage.standings]


def _asked(
    state: State, stage: Stage, clients: list[str], now: float, attempt: int
) -> tuple[State, tuple[Command, ...]]:
    deadline = now + _seconds(state)
    standings = {**stage.standings, **dict.fromkeys(clients, Standing.ASKED)}
    stage = replace(stage, standings=standings, attempt=attempt, began=now, deadline=deadline)
    return replace(state, stage=stage), (Ask(tuple(clients), stage.target), Wake(deadline))


def _ask_again(state: State, stage: Stage, clients: list[str]) -> tuple[State, tuple[Command, ...]]:
    standings = {**stage.standings, **dict.fromkeys(clients, Standing.ASKED)}
    return replace(state, stage=replace(stage, standings=standings)), (Ask(tuple(clients), stage.target),)


def _settle(state: State, stage: Stage) -> tuple[State, tuple[Command, ...]]:
    late = stage.of(Standing.ASKED)
    enough = len(stage.of(*_ANSWERED)) >= stage.target  # then the others are not lost, only not needed
    why = "not needed: enough others had answered" if enough else "late: no update before the time was up"
    lost = {**stage.reasons, **dict.fromkeys(late, why)}
    present = state.present if enough else state.present.difference(late)
    return replace(state, stage=None, present=present), (Settle(stage.of(*_ANSWERED), lost),)


def _quorum(state: State) -> int:
    assert state.stage is not None, "there is a quorum of an open stage only"
    return max(state.stage.least, math.ceil(state.stage.target * state.terms.quorum))


def _seconds(state: State) -> float:
    return deadline_seconds(state.durations, state.terms.shortest, state.terms.longest)


def _clients(count: int) -> str:
    return "client" if count == 1 else "clients"
