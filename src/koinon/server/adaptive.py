"""The adaptive server: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from koinon import tree
from koinon.core.ranges import positive, share
from koinon.core.types import RoundFacts, Variables
from koinon.server.average import moved
from koinon.tree import Array, Tree


class SecondMoment(Enum):
    """The one line in which FedAdagrad, FedAdam and FedYogi differ."""

    ADAGRAD = "adagrad"  # v + d**2
    ADAM = "adam"  # beta_2 * v + (1 - beta_2) * d**2
    YOGI = "yogi"  # v - (1 - beta_2) * d**2 * sign(v - d**2)


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """``m = beta_1 * m + (1 - beta_1) * d`` and ``w + learning_rate * m / (sqrt(v) + tau)``.

    ``d`` is the mean update. ``v`` starts at ``tau**2`` and follows ``second_moment``. There is no bias
    correction, as in the paper. The model's state (BatchNorm) takes the mean update as it is.
    """

    second_moment: SecondMoment
    learning_rate: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        positive(self, "learning_rate", "tau")
        share(self, "beta_1", "beta_2")

    def init(self, variables: Variables) -> Tree:
        """Return the model with its first moments, in float64."""
        params = variables["params"]
        return {
            "params": params,
            "state": variables["state"],
            "mean": tree.map(lambda x: np.zeros(np.shape(x), np.float64), params),
            "square": tree.map(lambda x: np.full(np.shape(x), self.tau**2, np.float64), params),
        }

    def broadcast(self, state: Tree) -> Tree:
        """Return the model."""
        return self.variables(state)

    def apply(self, state: Tree, aggregate: Tree, facts: RoundFacts) -> Tree:
        """Return the moved model and its moments."""
        change, keep = aggregate["params"], self.beta_1
        mean = tree.map(lambda m, d: keep * m + (1 - keep) * d, state["mean"], change)
        square = tree.map(self._square, state["square"], change)
        params = tree.map(
            lambda w, m, v: moved(w, self.learning_rate * m / (np.sqrt(v) + self.tau)), state["params"], mean, square
        )
        kept = tree.map(moved, state["state"], aggregate["state"])
        return {"params": params, "state": kept, "mean": mean, "square": square}

    def variables(self, state: Tree) -> Variables:
        """Return the model."""
        return {"params": state["params"], "state": state["state"]}

    def _square(self, v: Array, d: Array) -> Array:
        if self.second_moment is SecondMoment.ADAGRAD:
            return v + d * d
        if self.second_moment is SecondMoment.ADAM:
            return self.beta_2 * v + (1 - self.beta_2) * d * d
        return v - (1 - self.beta_2) * d * d * np.sign(v - d * d)
