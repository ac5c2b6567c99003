"""The client of SCAFFOLD: local steps corrected by control variates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from koinon import tree
from koinon.core.protocols import Model
from koinon.core.ranges import positive, whole, whole_or_none
from koinon.core.types import Batch, Metrics, Passes, Task, Update, Variables
from koinon.tree import Tree
from koinon.work.schedules import Constant, LearningRateSchedule, check_schedule


@dataclass(frozen=True, kw_only=True)
class ControlledTraining:
    """``y - learning_rate * (g - c_k + c)``, then ``c_k - c + (x - y) / (K * learning_rate)`` after K steps.

    ``c`` is the server's control variate and ``c_k`` the client's own, zero before its first round.
    Karimireddy et al., ICML 2020, algorithm 1, option II.
    """

    learning_rate: float = 0.1
    epochs: int = 1
    batch_size: int | None = 32
    steps: int | None = None
    schedule: LearningRateSchedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        positive(self, "learning_rate")
        whole(self, "epochs")
        whole_or_none(self, "batch_size", "steps")

    def passes(self) -> Passes:
        """Return the batches asked for."""
        return Passes(self.batch_size, self.epochs, self.steps)

    def learning_rate_factor(self, round: int) -> float:
        """Return the schedule's factor."""
        return self.schedule.factor(round)

    def init(self, variables: Variables) -> Tree:
        """Return a zero control variate."""
        return {"control": tree.zeros(variables["params"])}

    def begin(self, task: Task, broadcast: Tree, state: Tree) -> dict[str, Any]:
        """Return the global model and what every gradient is corrected by."""
        return {
            "params": broadcast["params"],
            "state": broadcast["state"],
            "correction": tree.subtract(broadcast["control"], state["control"]),
            "rate": self.learning_rate * task.learning_rate,
            "steps": np.float32(0),
        }

    def step(self, model: Model, carry: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Metrics]:
        """Take one corrected step."""
        params, rate = carry["params"], carry["rate"]
        gradients, state, metrics = model.grad({"params": params, "state": carry["state"]}, batch)
        params = tree.map(lambda y, g, c: y - rate * (g + c), params, gradients, carry["correction"])
        return {**carry, "params": params, "state": state, "steps": carry["steps"] + 1}, metrics

    def finish(self, task: Task, broadcast: Tree, carry: dict[str, Any]) -> tuple[Update, Tree]:
        """Return the changes of the model and of the control variate, and the new variate to keep."""
        change = tree.subtract(carry["params"], broadcast["params"])
        walked = carry["steps"] * carry["rate"]
        # A schedule may end at a rate of 0, where nothing changes and the quotient must not be 0 / 0.
        per_step = 1 / tree.namespace(walked).maximum(walked, np.float32(1e-30))
        # c_k+ - c_k = -c + (x - y) / (K * rate), and -correction = c_k - c.
        moved = tree.map(lambda c, d: -c - d * per_step, broadcast["control"], change)
        own = tree.map(lambda correction, d: -correction - d * per_step, carry["correction"], change)
        value = {
            "params": change,
            "state": tree.subtract(carry["state"], broadcast["state"]),
            "control": moved,
        }
        return Update(value, task.examples), {"control": own}
