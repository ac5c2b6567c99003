"""FedSGD's client: the gradient of all its examples at the global model, no local step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from koinon import tree
from koinon.core.protocols import Model
from koinon.core.ranges import whole_or_none
from koinon.core.types import Batch, Metrics, Passes, Task, Update, Variables
from koinon.tree import Tree
from koinon.work.schedules import Constant, LearningRateSchedule, check_schedule


@dataclass(frozen=True, kw_only=True)
class FullGradient:
    """``-g_k``, the client's full gradient, added up over batches so that its size is no shape.

    The mean of batch gradients, each weighted by its examples, is the gradient of the mean loss; state
    (BatchNorm) sees the batches one after the other. McMahan et al. 2017, section 2.
    """

    batch_size: int | None = 256
    schedule: LearningRateSchedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        whole_or_none(self, "batch_size")

    def passes(self) -> Passes:
        """Return one pass in the client's own order."""
        return Passes(self.batch_size, shuffle=False)

    def learning_rate_factor(self, round: int) -> float:
        """Return the schedule's factor, applied to the gradient sent."""
        return self.schedule.factor(round)

    def init(self, variables: Variables) -> Tree:
        """Return nothing."""
        return {}

    def begin(self, task: Task, broadcast: Tree, state: Tree) -> dict[str, Any]:
        """Return a zero gradient beside the global model."""
        params = broadcast["params"]
        return {"params": params, "state": broadcast["state"], "gradient": tree.zeros(params)}

    def step(self, model: Model, carry: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Metrics]:
        """Add one batch's gradient times its examples."""
        variables = {"params": carry["params"], "state": carry["state"]}
        gradients, state, metrics = model.grad(variables, batch)
        examples = batch.mask.sum()
        total = tree.map(lambda t, g: t + examples * g, carry["gradient"], gradients)
        return {**carry, "state": state, "gradient": total}, metrics

    def finish(self, task: Task, broadcast: Tree, carry: dict[str, Any]) -> tuple[Update, Tree]:
        """Return minus the mean gradient, weighted by the client's examples."""
        share = -task.learning_rate / task.examples
        value = {
            "params": tree.scale(carry["gradient"], share),
            "state": tree.subtract(carry["state"], broadcast["state"]),
        }
        return Update(value, task.examples), {}
