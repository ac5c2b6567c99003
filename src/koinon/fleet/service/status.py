"""What a coordinator shows its operator, as the JSON of the protocol's page: runs, rounds, clients, what is waited for."""

from __future__ import annotations

from typing import Any

from koinon.core.types import Purpose
from koinon.fleet.coordinator.access import Client
from koinon.fleet.coordinator.figures import Figures
from koinon.fleet.coordinator.machine import Standing
from koinon.fleet.coordinator.machine import State as MachineState
from koinon.fleet.coordinator.members import Fared
from koinon.fleet.service.house import House, ServedRun


def status(house: House, began: float) -> dict[str, Any]:
    """Return the status; ``began`` is when the coordinator started, by its clock."""
    return {
        "version": house.version,
        "url": house.url,
        "seconds": house.clock() - began,
        "runs": [_run(house, served) for served in house.runs.values()],
        "clients": [_party(house, client) for client in house.access.clients()],
        "invitations_open": house.access.invitations_open(),
    }


def state_of(served: ServedRun) -> str:
    """Return a run's state as one word."""
    run = served.run
    if run.ended is not None:
        return str(run.ended["state"])
    state, job, _ = run.snapshot()
    if state.paused or run.trouble.stops:
        return "paused"
    if job is None or state.stage is None:  # no round was opened yet, or this one is being added up
        return "waiting" if len(state.present) < state.terms.clients else "training"
    if state.held:
        return "waiting" if state.stage.attempt == 0 else "paused"
    return "training" if job.purpose is Purpose.TRAIN else "evaluating"


def _run(house: House, served: ServedRun) -> dict[str, Any]:
    run = served.run
    machine, job, now = run.snapshot()
    ended = run.ended or {}
    history = served.finished.shown()
    return {
        "run": run.key,
        "name": served.name,
        "algorithm": served.algorithm,
        "app": served.app,
        "state": state_of(served),
        "waits_for": None if ended else _with_trouble(served, _waits_for(served, machine, now)),
        "round": history[-1]["round"] if history else 0,
        "rounds": served.rounds,
        "stopped": ended.get("stopped"),
        "digest": ended.get("digest"),
        "privacy": served.promises() or None,
        "open": None
        if ended or job is None or machine.stage is None
        else _stage(machine, now, job.round, job.purpose.value),
        "history": history,
        "clients": [_member(house, served, machine, position, now) for position in range(len(run.members))],
    }


def resting(served: ServedRun) -> str | None:
    """Return what a run waits for that has begun and has too few clients or answers; None for one that is at work, or over."""
    machine, job, now = served.run.snapshot()
    asked = machine.stage is not None and (machine.stage.attempt > 0 or bool(machine.stage.awaited))
    begun = job is not None and (job.round > 1 or job.purpose is not Purpose.TRAIN)
    if served.run.ended is not None or machine.paused or not ((asked or begun) and machine.stage and machine.held):
        return None
    return _waits_for(served, machine, now)


def _waits_for(served: ServedRun, machine: MachineState, now: float) -> str | None:
    """Return what is waited for, and who of the clients has not answered."""
    waits = machine.waits_for
    if machine.seal is not None and not machine.paused:
        silent = [_last_heard(served, client, now) for client in machine.seal.silent[:5]]
        return f"{waits}, or it is void in {max(0.0, machine.seal.deadline - now):.0f} s: {', '.join(silent)}"
    if machine.paused or (machine.stage is not None and machine.stage.awaited):
        return waits
    if machine.stage is None or machine.stage.attempt == 0:
        return _with_the_absent(served, machine, _joining(machine) if machine.stage is None else waits, now)
    silent = [_last_heard(served, client, now) for client in machine.stage.of(Standing.ASKED)[:5]]
    useless = machine.stage.of(Standing.FAILED, *([Standing.REFUSED] if machine.held else []))[:5]
    failed = [f"{_name(served, c)} ({machine.stage.reasons.get(c, 'its update cannot be added')})" for c in useless]
    return f"{waits}: {', '.join([*silent, *failed])}" if silent or failed else waits


def _with_trouble(served: ServedRun, waits: str | None) -> str | None:
    """Return what is waited for, with what went wrong; that alone where the run cannot go on for it."""
    trouble = served.run.trouble
    return f"{waits}; {trouble.text}" if waits and trouble.text and not trouble.stops else trouble.text or waits


def _with_the_absent(served: ServedRun, machine: MachineState, waits: str | None, now: float) -> str | None:
    """Return what is waited for, with who has joined and is not here."""
    members = (member.client for member in served.run.members)
    away = [client for client in members if client not in machine.present | machine.revoked][:5]
    return (
        f"{waits}; missing: {', '.join(_last_heard(served, client, now) for client in away)}"
        if waits and away
        else waits
    )


def _joining(machine: MachineState) -> str | None:
    missing = machine.terms.clients - len(machine.present)
    if missing <= 0:
        return None
    clients = "client" if missing == 1 else "clients"
    return f"{missing} more {clients} to join: {len(machine.present)} of {machine.terms.clients} are here"


def _last_heard(served: ServedRun, client: str, now: float) -> str:
    figures = served.run.figures.get(client)
    heard = "never heard of since the start" if figures is None else f"last heard of {now - figures.heard:.0f} s ago"
    return f"{_name(served, client)} ({heard})"


def _name(served: ServedRun, client: str) -> str:
    return served.run.members[served.run.members.position(client)].name


def _stage(machine: MachineState, now: float, round: int, purpose: str) -> dict[str, Any]:
    stage = machine.stage
    assert stage is not None, "an open stage is shown"
    arrived = len(stage.of(Standing.ARRIVED, Standing.REFUSED))
    left = None  # a pause counts no time, and after it all of it is given again
    if stage.deadline is not None and not machine.paused:
        left = max(0.0, stage.deadline - now)
    asked = len(stage.standings)
    known = {"round": round, "purpose": purpose, "asked": asked, "arrived": arrived}
    return {**known, "attempt": stage.attempt, "seconds_left": left}


def _member(house: House, served: ServedRun, machine: MachineState, position: int, now: float) -> dict[str, Any]:
    member = served.run.members[position]
    own = served.run.figures.get(member.client)
    over = served.run.ended is not None  # a run that is cancelled leaves its stage open
    standing = None if machine.stage is None or over else machine.stage.standings.get(member.client)
    word = "idle" if standing is None else standing.value
    if standing is None and member.client not in machine.present and not over:
        word = "late"
    if house.access.client(member.client).revoked:
        word = "revoked"
    known = {
        "client": member.client,
        "name": member.name,
        "standing": word,
        "train_examples": None if served.hidden else member.train,
        "rounds_done": served.run.fared.get(member.client, Fared()).rounds_done,
    }
    return {**known, **_figures(own, now)}


def _figures(own: Figures | None, now: float) -> dict[str, Any]:
    speed = None if own is None or not own.upload_seconds else own.bytes_received / own.upload_seconds
    return {
        "seconds_since_heard": None if own is None else now - own.heard,
        "bytes_received": 0 if own is None else own.bytes_received,
        "bytes_sent": 0 if own is None else own.bytes_sent,
        "upload_bytes_per_second": speed,
        "last_round_seconds": None if own is None else own.last_round_seconds,
        "last_error": None if own is None else own.last_error,
    }


def _party(house: House, party: Client) -> dict[str, Any]:
    books = [served.run.figures for served in house.runs.values()]
    heard = [house.clock() - book[party.client].heard for book in books if party.client in book]
    return {
        "client": party.client,
        "name": party.name,
        "kind": party.key.kind.value,
        "revoked": party.revoked,
        "seconds_since_heard": min(heard, default=None),
    }
