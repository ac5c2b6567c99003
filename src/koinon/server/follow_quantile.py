"""The server's half of adaptive clipping: any server, with the clipping norm beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from koinon import tree
from koinon.core.protocols import Server
from koinon.core.types import RoundFacts, Variables
from koinon.privacy.quantile import CLIPPING, QuantileNorm
from koinon.tree import Tree


@dataclass(frozen=True)
class FollowQuantile:
    """``server``, given the mean update times the norm; the norm then moves by the clients' answers.

    Andrew et al., NeurIPS 2021, algorithm 1, with the count and the sum in one aggregate.
    """

    server: Server
    norm: QuantileNorm

    def init(self, variables: Variables) -> Tree:
        """Return the server's state and the first norm."""
        return {"server": self.server.init(variables), CLIPPING: {"norm": np.float64(self.norm.initial)}}

    def broadcast(self, state: Tree) -> Tree:
        """Return what the server sends and the norm in float32."""
        return {**self.server.broadcast(state["server"]), CLIPPING: tree.map(np.float32, state[CLIPPING])}

    def apply(self, state: Tree, aggregate: Tree, facts: RoundFacts) -> Tree:
        """Return the server's next state and the next norm."""
        sent = float(self.broadcast(state)[CLIPPING]["norm"])
        update = tree.scale({name: part for name, part in aggregate.items() if name != CLIPPING}, sent)
        following = self.norm.following(float(state[CLIPPING]["norm"]), float(aggregate[CLIPPING]["norm"]))
        return {
            "server": self.server.apply(state["server"], update, facts),
            CLIPPING: {"norm": np.float64(following)},
        }

    def variables(self, state: Tree) -> Variables:
        """Return the model."""
        return self.server.variables(state["server"])
