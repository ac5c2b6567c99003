"""What an engine computes with, and what engines and runtimes must be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Dataset, Model, Offers
from koinon.core.types import Job, Partial, Payload, Variables
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Plan:
    """The heavy half of the work, shipped to a worker once and kept there."""

    algorithm: Algorithm
    model: Model
    data: Dataset
    test: Dataset | None = None  # the server's own examples, as a dataset of one client


class Engine(Protocol):
    """How a chunk of clients is computed."""

    @property
    def name(self) -> str:
        """What the engine is called."""

    def run(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Compute every task; ``states`` are the clients' stacked states in task order ({} if none)."""

    def send(self, plan: Plan, job: Job, states: Tree) -> tuple[Payload, Tree]:
        """Compute the one task of ``job``; return what its client sends and its new state. States are ``[1, ...]``."""


class Runtime(Protocol):
    """Where chunks run. A context manager that owns its workers."""

    @property
    def offers(self) -> frozenset[Offers]:
        """What it can do."""

    @property
    def engine(self) -> str:
        """The name of the engine it computes with."""

    def initial(self, plan: Plan, key: Array) -> Variables:
        """Return the model's first variables, computed where rounds are: the same bits in every runtime."""

    def round(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Return the exact total of the whole cohort, its rows in task order, its new states."""

    def close(self) -> None:
        """Release every worker. Safe to call twice."""
