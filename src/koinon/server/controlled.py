"""The server of SCAFFOLD: the model, and the mean of the clients' control variates."""

from __future__ import annotations

from dataclasses import dataclass

from koinon import tree
from koinon.core.ranges import positive
from koinon.core.types import RoundFacts, Variables
from koinon.server.average import moved
from koinon.tree import Tree


@dataclass(frozen=True)
class Controlled:
    """``x + learning_rate * mean(dx)`` and ``c + |S| / N * mean(dc)``.

    Both means are weighted by examples, as FLamby's benchmark has it: mixing weighted models with a uniform mean
    of the variates is a bug that costs accuracy. Karimireddy et al., ICML 2020, algorithm 1, lines 16-17.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "learning_rate")

    def init(self, variables: Variables) -> Tree:
        """Return the model and a zero control variate."""
        params = variables["params"]
        return {"params": params, "state": variables["state"], "control": tree.zeros(params)}

    def broadcast(self, state: Tree) -> Tree:
        """Return the model and the control variate."""
        return state

    def apply(self, state: Tree, aggregate: Tree, facts: RoundFacts) -> Tree:
        """Return the moved model and control variate."""
        share = facts.cohort / facts.population
        return {
            "params": tree.map(lambda x, d: moved(x, self.learning_rate * d), state["params"], aggregate["params"]),
            "state": tree.map(moved, state["state"], aggregate["state"]),
            "control": tree.map(lambda c, d: moved(c, share * d), state["control"], aggregate["control"]),
        }

    def variables(self, state: Tree) -> Variables:
        """Return the model."""
        return {"params": state["params"], "state": state["state"]}
