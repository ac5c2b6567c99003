"""The server of FedAvg: add the mean update, optionally with a learning rate and momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koinon import tree
from koinon.core.ranges import positive, share
from koinon.core.types import RoundFacts, Variables
from koinon.tree import Array, Tree


def moved(old: Array, change: Array) -> Array:
    """Return ``old + change`` computed in float64 and kept in the type of ``old``."""
    result: Array = np.add(old, change, dtype=np.float64).astype(np.asarray(old).dtype)
    return result


@dataclass(frozen=True)
class Average:
    """``w + learning_rate * m`` with ``m = momentum * m + mean update``.

    With ``momentum=0`` and ``learning_rate=1`` this is FedAvg; with momentum, FedAvgM
    (Hsu et al. 2019, arXiv 1909.06335). The model's state (BatchNorm) takes the mean update as it is.
    """

    learning_rate: float = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "learning_rate")
        share(self, "momentum")

    def init(self, variables: Variables) -> Tree:
        """Return the model, and a zero velocity if there is momentum."""
        state = {"params": variables["params"], "state": variables["state"]}
        if self.momentum:
            state["velocity"] = tree.map(lambda x: np.zeros(np.shape(x), np.float64), variables["params"])
        return state

    def broadcast(self, state: Tree) -> Tree:
        """Return the model."""
        return self.variables(state)

    def apply(self, state: Tree, aggregate: Tree, facts: RoundFacts) -> Tree:
        """Return the moved model."""
        change = aggregate["params"]
        new = {"state": tree.map(moved, state["state"], aggregate["state"])}
        if self.momentum:
            change = tree.map(lambda v, d: self.momentum * v + d, state["velocity"], change)
            new["velocity"] = change
        new["params"] = tree.map(lambda w, d: moved(w, self._step(d)), state["params"], change)
        return new

    def _step(self, change: Array) -> Array:
        return change if self.learning_rate == 1 else self.learning_rate * change

    def variables(self, state: Tree) -> Variables:
        """Return the model."""
        return {"params": state["params"], "state": state["state"]}
