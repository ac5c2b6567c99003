"""Local training: the client's fold over its own batches, from the global model to an update."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from koinon import tree
from koinon.core.protocols import Model
from koinon.core.ranges import whole, whole_or_none
from koinon.core.types import Batch, Metrics, Passes, Task, Update, Variables
from koinon.errors import ConfigurationError
from koinon.tree import Tree
from koinon.work.corrections import Correction
from koinon.work.optimizers import Optimizer, Sgd
from koinon.work.schedules import Constant, LearningRateSchedule, check_schedule


class Weighting(Enum):
    """What an update counts for in the average."""

    EXAMPLES = "examples"  # n_k, as McMahan et al. weight it
    UNIFORM = "uniform"  # 1: needed where a client's size must not show


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """``epochs`` over the client's examples (or ``steps`` batches), from the global model.

    The update is the difference to the global model, parameters and state alike.
    ``batch_size=None`` takes all the client's examples as one batch.
    McMahan et al., "Communication-Efficient Learning of Deep Networks", AISTATS 2017, algorithm 1.
    """

    optimizer: Optimizer = field(default_factory=Sgd)
    epochs: int = 1
    batch_size: int | None = 32
    steps: int | None = None
    corrections: tuple[Correction, ...] = ()
    schedule: LearningRateSchedule = field(default_factory=Constant)
    weighting: Weighting = Weighting.EXAMPLES

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        if not (hasattr(self.optimizer, "init") and hasattr(self.optimizer, "apply")):
            raise ConfigurationError(
                f"LocalTraining.optimizer must be one of koinon's, such as sgd(0.1); found {self.optimizer!r}."
            )
        whole(self, "epochs")
        whole_or_none(self, "batch_size", "steps")

    def passes(self) -> Passes:
        """Return the batches asked for."""
        return Passes(self.batch_size, self.epochs, self.steps)

    def learning_rate_factor(self, round: int) -> float:
        """Return the schedule's factor."""
        return self.schedule.factor(round)

    def init(self, variables: Variables) -> Tree:
        """Return nothing: plain local training keeps nothing between rounds."""
        return {}

    def begin(self, task: Task, broadcast: Tree, state: Tree) -> dict[str, Any]:
        """Return the global model and a fresh optimiser."""
        params = broadcast["params"]
        carry = {
            "params": params,
            "state": broadcast["state"],
            "optimizer": self.optimizer.init(params),
            "rate": task.learning_rate,
        }
        return {**carry, "anchor": params} if self.corrections else carry

    def step(self, model: Model, carry: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Metrics]:
        """Take one optimiser step."""
        params = carry["params"]
        gradients, state, metrics = model.grad({"params": params, "state": carry["state"]}, batch)
        for correction in self.corrections:
            gradients = correction.correct(gradients, params, carry["anchor"])
        params, optimizer = self.optimizer.apply(params, gradients, carry["optimizer"], carry["rate"])
        return {**carry, "params": params, "state": state, "optimizer": optimizer}, metrics

    def finish(self, task: Task, broadcast: Tree, carry: dict[str, Any]) -> tuple[Update, Tree]:
        """Return the change of the model, weighted by the client's examples."""
        value = {name: tree.subtract(carry[name], broadcast[name]) for name in ("params", "state")}
        weight = task.examples if self.weighting is Weighting.EXAMPLES else np.float32(1)
        return Update(value, weight), {}
