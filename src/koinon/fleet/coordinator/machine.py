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
from typing import Any

from koinon.core.algorithm import Synchronous
from koinon.fleet.coordinator.events import (
    Answered,
    Ask,
    Command,
    Event,
    Failed,
    Needed,
    Open,
    Pause,
    Present,
    Resume,
    Revoked,
    Sealed,
    Settle,
    Tick,
    Unsealed,
    Void,
    Wake,
)
from koinon.round.deadlines import deadline_seconds

SILENT = "fell silent before the sum was opened"
"""Why a client is lost whose word the sum of a void stage lacked."""
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
class Stage:
    """One open stage."""

    draw: tuple[str, ...]
    reserve: tuple[str, ...]
    least: int = 1
    newcomers: bool = False
    closed: bool = False  # to all others: void at once when fewer are left of these than are of any use
    essential: tuple[str, ...] = ()
    lapses: bool = False  # void, and not waiting for more, when its time is up with too few
    awaited: Mapping[str, str] = field(default_factory=dict)  # who has to come back before anybody is asked
    begins: bool = True  # a round, for which as many must be here as the schedule says; else they have so long to come
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
class Seal:
    """What keeps the sum of a stage closed that is settled: so many of its clients have to speak once more."""

    step: str
    silent: tuple[str, ...]
    deadline: float
    refusals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """All that a run's coordinator knows of its clients."""

    terms: Synchronous
    present: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()  # for good
    stage: Stage | None = None
    seal: Seal | None = None
    paused: bool = False
    durations: tuple[float, ...] = ()

    @property
    def waits_for(self) -> str | None:
        """What stops the run from going on, for people; None while it is waiting for nobody."""
        if self.paused:
            return "the operator: the run is paused. koinon resume lets it go on"
        if self.seal is not None:
            return f"{len(self.seal.silent)} {_clients(len(self.seal.silent))} to open the sum of the updates"
        if self.stage is None:
            return None
        if self.stage.awaited:
            names = ", ".join(sorted(self.stage.awaited.values()))
            return f"{names}: without them round after round came to nothing. koinon resume tries again, koinon revoke goes on without"
        if self.stage.attempt == 0:
            missing = self.terms.clients - len(self.present)
            if missing <= 0 and not self.present.issuperset(self.stage.essential):
                return "the client by whose update all others are measured: it is not here"
            if missing <= 0 and self.stage.lapses:
                return f"{self.stage.least} of the clients that were drawn: fewer are here"
            if missing <= 0:
                return "one of the clients that were drawn: none of them is here"
            return f"{missing} more {_clients(missing)} to join: {len(self.present)} of {self.terms.clients} are here"
        answered = len(self.stage.of(*_ANSWERED))
        refused = len(self.stage.of(Standing.REFUSED))
        if self.held:
            missing = max((enough := quorum(self.stage, self.terms)) - answered, self.stage.least - answered + refused)
            if missing <= 0:
                return "an update that can be added of the client by whose update all others are measured"
            of_no_use = f", {refused} of them with what cannot be added" if refused else ""
            return f"{missing} more {_clients(missing)}: {answered} have answered{of_no_use}, and {enough} must"
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
    assert state.stage is None and state.seal is None, "a stage is opened when the one before is settled"
    awaited = {client: name for client, name in event.awaited.items() if client not in state.revoked}
    terms = (event.least, event.newcomers, event.closed, event.essential, event.lapses)
    stage = Stage(event.draw, event.reserve, *terms, {} if event.asked else awaited, begins=event.begins)
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
    if stage is not None:
        stage = _back(stage, client)
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
    stage = None if state.stage is None else _back(state.stage, event.client)
    state = replace(state, stage=stage, present=state.present - gone, revoked=state.revoked | gone)
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


def _back(stage: Stage, client: str) -> Stage:
    """Return the stage without waiting for a client to come back."""
    return replace(stage, awaited={own: name for own, name in stage.awaited.items() if own != client})


def _needed(state: State, event: Needed, now: float) -> State:
    stage = state.stage
    if stage is None:
        return state
    stage = replace(stage, least=event.least, lapses=event.lapses)
    if stage.lapses and stage.attempt and stage.deadline is None:  # it rested before it had come so far
        stage = replace(stage, began=None, deadline=now + _seconds(state))
    return replace(state, stage=stage)


def _sealed(state: State, event: Sealed, now: float) -> State:
    assert state.stage is None, "a sum is opened when its stage is settled"
    if state.seal is not None and state.seal.step == event.step:
        return replace(state, seal=replace(state.seal, silent=event.silent, refusals=event.refusals))
    return replace(state, seal=Seal(event.step, event.silent, now + _seconds(state), event.refusals))


def _resumed(state: State, event: Resume, now: float) -> State:
    stage = state.stage
    if state.paused and stage is not None and stage.deadline is not None:
        stage = replace(stage, began=None, deadline=now + _seconds(state))
    if stage is not None and stage.awaited:
        stage = replace(stage, awaited={})
    seal = None if state.seal is None else replace(state.seal, deadline=now + _seconds(state))
    return replace(state, paused=False, stage=stage, seal=seal if state.paused else state.seal)


_REACTIONS: Mapping[type, Callable[[State, Any, float], State]] = {
    Open: _opened, Present: _appeared, Answered: _answered, Failed: _failed, Revoked: _revoked, Needed: _needed, Sealed: _sealed,
    Resume: _resumed, Pause: lambda state, event, now: replace(state, paused=True),
    Unsealed: lambda state, event, now: replace(state, seal=None), Tick: lambda state, event, now: state,
}  # fmt: skip


def _advance(state: State, now: float) -> tuple[State, tuple[Command, ...]]:
    """Take every step that the state allows now."""
    stage = state.stage
    if state.seal is not None and not state.paused:
        return _opening(state, state.seal, now)
    if stage is None or state.paused or stage.awaited or (stage.attempt == 0 and stage.begins and _rests(state, stage)):
        return state, ()
    if stage.closed and len({*stage.draw, *stage.reserve} - state.revoked) < stage.least:
        return replace(state, stage=None), (Void((), stage.reasons),)  # nobody is to blame who was still asked
    if not stage.draw or state.revoked.issuperset((*stage.draw, *stage.reserve)):
        return _settle(state, stage)  # an empty cohort, as coins may fall, or one of which nobody is left
    if stage.attempt == 0:
        few = not stage.begins and len(state.present) < state.terms.clients
        return (_gather if few or (stage.lapses and not _ready(state, stage)) else _begin)(state, stage, now)
    answered, pending = len(stage.of(*_ANSWERED)), stage.of(Standing.ASKED)
    over = stage.deadline is None or now >= stage.deadline or not pending
    if answered >= (min(stage.target, quorum(stage, state.terms)) if over else stage.target) and _of_use(state, stage):
        return _settle(state, stage)
    if stage.deadline is None:
        back = [c for c in stage.of(Standing.FAILED) if c in state.present] + _others(state, stage)
        return _ask_again(state, stage, back) if back else (state, ())
    if over:
        return _retry(state, stage, now)
    return state, (Wake(stage.deadline),)


def _rests(state: State, stage: Stage) -> bool:
    """Return whether a round is not begun before others are here, however long that takes."""
    short = len(state.present) < state.terms.clients and stage.deadline is None
    return short or not (stage.lapses or state.present.issuperset(stage.essential))


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
    if stage.lapses and (stage.attempt > state.terms.retries or not again):
        assert stage.deadline is not None, "what lapses has a time when it does"
        late = now >= stage.deadline or not stage.of(Standing.FAILED)  # until then who has failed may mend it
        return _void(state, stage) if late else (state, (Wake(stage.deadline),))
    if stage.attempt > state.terms.retries or not again:
        return _advance(replace(state, stage=replace(stage, deadline=None)), now)
    return _asked(state, stage, again, now, attempt=stage.attempt + 1)


def _gather(state: State, stage: Stage, now: float) -> tuple[State, tuple[Command, ...]]:
    """Give those who are missing the time to come, and then ask those who are here, if they are of any use."""
    left = {*stage.draw, *stage.reserve} - state.revoked
    if stage.deadline is None and (len(left) >= stage.least if stage.lapses else _ready(state, stage)):
        stage = replace(stage, deadline=now + _seconds(state))
    if stage.deadline is not None and now < stage.deadline:
        return replace(state, stage=stage), (Wake(stage.deadline),)
    if _ready(state, stage):
        return _begin(state, stage, now)
    return _void(state, stage) if stage.lapses else (replace(state, stage=replace(stage, deadline=None)), ())


def _ready(state: State, stage: Stage) -> bool:
    """Return whether there are some here to be asked: of what lapses as many as are of use, and those without whom none is."""
    least = stage.least if stage.lapses else 1
    return len(_here(state, stage)) >= least and state.present.issuperset(stage.essential)


def _void(state: State, stage: Stage) -> tuple[State, tuple[Command, ...]]:
    silent = stage.of(Standing.ASKED)
    lost = {**stage.reasons, **dict.fromkeys(silent, SILENT)}
    state = replace(state, stage=None, present=state.present.difference(silent))
    return state, (Void((*silent, *stage.of(Standing.FAILED)), lost),)


def _opening(state: State, seal: Seal, now: float) -> tuple[State, tuple[Command, ...]]:
    """Wait for those who can open a sum; it never is, once their time is up or all of them have refused."""
    silent = set(seal.silent) - seal.refusals.keys()
    if silent and now < seal.deadline:
        return state, (Wake(seal.deadline),)
    state = replace(state, seal=None, present=state.present.difference(silent))
    return state, (Void(seal.silent, {client: seal.refusals.get(client, SILENT) for client in seal.silent}),)


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


def quorum(stage: Stage, terms: Synchronous) -> int:
    """Return how many answers settle a stage whose time is up."""
    return max(stage.least, math.ceil(stage.target * terms.quorum))


def _seconds(state: State) -> float:
    return deadline_seconds(state.durations, state.terms.shortest, state.terms.longest)


def _clients(count: int) -> str:
    return "client" if count == 1 else "clients"
