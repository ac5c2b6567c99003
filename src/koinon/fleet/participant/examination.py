"""An examination: checks in order, each with a deadline, each one line of what was found and what to do.

A check that fails skips those that need it. Whatever a check waits for, it is left after its deadline: it runs in
a thread of its own, because a name look-up cannot be interrupted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from koinon.errors import KoinonError

Seen = TypeVar("Seen")


class Verdict(Enum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"  # it works, and something about it should be known
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What one check found. ``fix`` is what to do; ``skipped`` names the checks that could not be made for it."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Answer(Generic[Seen]):
    """A check that passed: all that is known now, in what words, and with ``fix`` a warning."""

    seen: Seen
    found: str
    fix: str = ""


class Wrong(Exception):
    """A check that failed: what was found, and what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found = found
        self.fix = fix


@dataclass(frozen=True)
class Check(Generic[Seen]):
    """One check: ``look`` may take ``seconds`` and needs what the check ``after`` found out."""

    name: str
    after: str | None
    seconds: float
    look: Callable[[Seen], Answer[Seen]]


def examine(checks: Sequence[Check[Seen]], seen: Seen, *, seconds: float) -> Iterator[Finding]:
    """Yield one finding a check, in order, each as soon as it is known; all of them within ``seconds``."""
    end = time.monotonic() + seconds
    failed: set[str] = set()
    for place, check in enumerate(checks):
        if check.name in failed:
            continue
        begun = time.monotonic()
        allowed = max(0.0, min(check.seconds, end - begun))
        try:
            answer = _within(allowed, check, seen)
        except Wrong as wrong:
            skipped = _that_need(check.name, checks[place + 1 :])
            failed.update(skipped)
            took = time.monotonic() - begun
            yield Finding(check.name, Verdict.WRONG, wrong.found, wrong.fix, skipped, took)
        else:
            seen = answer.seen
            verdict = Verdict.NOTE if answer.fix else Verdict.OK
            yield Finding(check.name, verdict, answer.found, answer.fix, (), time.monotonic() - begun)


def _that_need(name: str, later: Sequence[Check[Seen]]) -> tuple[str, ...]:
    lost = [name]
    for check in later:
        if check.after in lost:
            lost.append(check.name)
    return tuple(lost[1:])


def _within(seconds: float, check: Check[Seen], seen: Seen) -> Answer[Seen]:
    """Return the check's answer, or raise Wrong with its reason, or because its time is over."""
    done: queue.SimpleQueue[Answer[Seen] | BaseException] = queue.SimpleQueue()

    def look() -> None:
        try:
            done.put(check.look(seen))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.put(error)

    threading.Thread(target=look, name=f"doctor: {check.name}", daemon=True).start()
    try:
        outcome = done.get(timeout=seconds)
    except queue.Empty:
        raise Wrong(
            f"no result within {seconds:.3g} s",
            "Something on the way swallows packets, or the other side is overloaded. Try again; if it stays so, ask "
            "whoever runs the network between here and the coordinator.",
        ) from None
    if isinstance(outcome, OSError):
        raise Wrong(f"{type(outcome).__name__}: {outcome}", "Try again; if it stays so, ask the operator.") from outcome
    if isinstance(outcome, KoinonError):
        raise Wrong(str(outcome), "The message says what to do.") from outcome
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
