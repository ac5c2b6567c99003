"""What a run tells those who watch it, and what it writes down before the next round may begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from koinon.core.types import Rows
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, as a row of the history."""

    round: int  # from 1
    cohort: int  # clients asked
    refused: Mapping[str, tuple[str, ...]]  # client name -> the leaves it was refused for
    figures: Mapping[str, float]  # train_loss, loss, accuracy, accuracy_worst, test_accuracy, ...
    seconds: float
    rows: Rows | None = None  # one row per client of the cohort; not kept in a journal's summary
    lost: Mapping[str, str] = field(default_factory=dict)  # clients that were asked and sent nothing -> why
    void: Mapping[str, str] = field(default_factory=dict)  # "train" or "evaluate", if it has no result -> why

    def to_json(self) -> dict[str, Any]:
        """Return everything but the client rows."""
        refused = {name: list(leaves) for name, leaves in self.refused.items()}
        known = {"round": self.round, "cohort": self.cohort, "refused": refused, "lost": dict(self.lost)}
        void = {"void": dict(self.void)} if self.void else {}
        return {**known, "seconds": self.seconds, **void, **self.figures}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> RoundRecord:
        """Return the record of :meth:`to_json`."""
        own = ("round", "cohort", "refused", "lost", "seconds", "void")
        refused = {name: tuple(leaves) for name, leaves in row["refused"].items()}
        figures = {name: value for name, value in row.items() if name not in own}
        why = {name: row.get(name, {}) for name in ("lost", "void")}
        return cls(row["round"], row["cohort"], refused, figures, row["seconds"], **why)


@dataclass(frozen=True)
class RunStarted:
    """A run begins or goes on. Trackers are told the last three too."""

    name: str
    clients: int
    rounds: int
    resumed_from: int  # finished rounds; 0 for a new run
    run: str = ""  # the same in every session of a run, and in no other run
    identity: Mapping[str, Any] = field(default_factory=dict)  # everything that can change a bit of the result
    past: tuple[RoundRecord, ...] = ()  # the rounds before ``resumed_from``


@dataclass(frozen=True)
class RoundFinished:
    """A round has been committed."""

    record: RoundRecord


@dataclass(frozen=True)
class RunFinished:
    """The run has ended, and why."""

    stopped: str
    rounds: int
    digest: str


class Listener(Protocol):
    """Someone who watches: a progress bar, a log, a tracker. May not change the run."""

    def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
        """Take one event."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a later process needs to go on after a round, or to begin."""

    round: int  # finished rounds; 0 before the first
    server: Tree
    watch: Mapping[str, Any]
    best: Tree  # the best model so far; {} where none was judged
    record: RoundRecord | None  # None at round 0
    judged: Mapping[str, Mapping[str, float]]  # each client's own figures, from the last evaluation
    clients: Array | None = None  # positions of clients whose state changed
    states: Tree = field(default_factory=dict)  # their new states, stacked


class Journal(Protocol):
    """Where finished rounds are kept. A commit is all or nothing."""

    def commit(self, checkpoint: Checkpoint) -> None:
        """Write a round down before the next begins."""
