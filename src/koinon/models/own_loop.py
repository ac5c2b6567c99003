"""The user's own training loop as a client: ``train(params, data, task) -> (params, examples, metrics)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from koinon import tree
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Dataset, Model
from koinon.core.types import Batch, Metrics, Passes, Task, Update, Variables
from koinon.errors import CompositionError, ModelError
from koinon.exact import LARGEST_WEIGHT
from koinon.metrics import EXAMPLES, LOSS
from koinon.models.describe import describe_function
from koinon.tree import Array, Tree
from koinon.work.local import LocalTraining

Examples = tuple[Tree, Tree]
Train = Callable[[Tree, Examples, Task], tuple[Tree, int, Mapping[str, float]]]


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnLoop:
    """A model that only its own code knows how to train.

    ``params`` is a nested dict of arrays, or a function of no arguments that makes one.
    ``train(params, data, task)`` gets numpy parameters and the client's examples ``(x, y)``, and returns the
    trained parameters, how many examples they count for (a whole number), and means such as
    ``{"loss": 0.3}``. ``numpy.random.default_rng(task.key)`` is a generator of this client's and round's own.
    ``evaluate(params, data)`` returns means over held-out examples; without it nothing can be held out.
    """

    params: Tree | Callable[[], Tree]
    train: Train
    evaluate: Callable[[Tree, Examples], Mapping[str, float]] | None = None


@dataclass(frozen=True, eq=False)
class OwnLoopModel:
    """An OwnLoop as a Model that only the reference engine runs."""

    loop: OwnLoop
    compiled: bool = False

    def fitted(self, algorithm: Algorithm) -> Algorithm:
        """Return the algorithm with this loop as its client work."""
        if type(algorithm.work) in (LocalTraining, OwnTraining):
            return replace(algorithm, work=OwnTraining())
        raise CompositionError(
            f"{algorithm.name} changes the client's steps, which your own train() takes itself. "
            "Use fedavg, fedadagrad, fedadam or fedyogi, or write that change into train()."
        )

    def init(self, key: Array) -> Variables:
        """Return the user's parameters as float32."""
        params = self.loop.params() if callable(self.loop.params) else self.loop.params
        return {"params": tree.map(lambda x: np.array(x, np.float32), params), "state": {}}

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        """Refuse: the loop takes its own gradients."""
        raise CompositionError(
            "A model with its own training loop gives no gradients. Use an algorithm that averages models."
        )

    def run(self, params: Tree, batch: Batch, task: Task) -> tuple[Tree, float, Metrics]:
        """Return what ``train`` made of the client's examples: parameters, weight, sums."""
        result = self.loop.train(tree.map(np.array, params), _examples(batch), task)
        if not isinstance(result, tuple) or len(result) != 3:
            raise ModelError(f"train() must return (params, examples, metrics); found {type(result).__name__}.")
        trained, examples, means = result
        if not (1 <= examples < LARGEST_WEIGHT and examples == int(examples)):
            raise ModelError(
                "train() must return how many examples its parameters count for, a whole number "
                f"from 1 to {LARGEST_WEIGHT - 1}; found {examples!r}."
            )
        if tree.names(trained) != tree.names(params):
            raise ModelError(
                f"train() must return the parameters it was given, {list(tree.names(params))[:6]}; "
                f"found {list(tree.names(trained))[:6]}."
            )
        new = tree.map(lambda x, old: np.asarray(x, np.float32).reshape(np.shape(old)), trained, params)
        return new, float(examples), _sums(means, float(examples))

    def evaluate(self, variables: Variables, batch: Batch) -> Metrics:
        """Return the sums of the loop's ``evaluate``."""
        judge = self.loop.evaluate
        assert judge is not None, "nothing is held out without evaluate="
        examples = _examples(batch)
        return _sums(judge(variables["params"], examples), float(batch.mask.sum()))

    def finish(self, sums: Metrics) -> dict[str, float]:
        """Return every mean."""
        examples = float(sums[EXAMPLES])
        return {name: float(total) / examples for name, total in sums.items() if name != EXAMPLES}

    def check(self, data: Dataset) -> None:
        """Raise ModelError if examples are held out and nothing can judge them."""
        if data.has_held_out and self.loop.evaluate is None:
            raise ModelError(
                "The clients hold examples out, but this OwnLoop cannot judge a model. "
                "Give it evaluate=, a function (params, (x, y)) -> means, or hold nothing out: holdout=0."
            )

    def computable_here(self) -> bool:
        """Return True."""
        return True

    def trained(self, variables: Variables) -> Any:
        """Return the parameters."""
        return variables["params"]

    def describe(self) -> Any:
        """Return the functions by name and source."""
        judge = None if self.loop.evaluate is None else describe_function(self.loop.evaluate)
        return {"kind": "own loop", "train": describe_function(self.loop.train), "evaluate": judge}


@dataclass(frozen=True)
class OwnTraining:
    """A client's work of one step: hand all examples to the model's own loop."""

    def passes(self) -> Passes:
        """Return one batch of everything, in its own order."""
        return Passes(None, shuffle=False)

    def learning_rate_factor(self, round: int) -> float:
        """Return 1: the loop sets its own."""
        return 1.0

    def init(self, variables: Variables) -> Tree:
        """Return nothing."""
        return {}

    def begin(self, task: Task, broadcast: Tree, state: Tree) -> dict[str, Any]:
        """Return the global model and the task."""
        return {"params": broadcast["params"], "examples": 0.0, "task": task}

    def step(self, model: Model, carry: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Metrics]:
        """Run the loop."""
        if not isinstance(model, OwnLoopModel):
            raise CompositionError(
                f"OwnTraining needs a model with its own loop (kn.OwnLoop); found {type(model).__name__}."
            )
        params, examples, sums = model.run(carry["params"], batch, carry["task"])
        return {**carry, "params": params, "examples": examples}, sums

    def finish(self, task: Task, broadcast: Tree, carry: dict[str, Any]) -> tuple[Update, Tree]:
        """Return the change of the model, weighted by what the loop said it counts for."""
        value = {"params": tree.subtract(carry["params"], broadcast["params"]), "state": {}}
        return Update(value, np.float32(carry["examples"])), {}


def _examples(batch: Batch) -> Examples:
    count = int(batch.mask.sum())
    return tree.map(lambda a: a[:count], batch.x), tree.map(lambda a: a[:count], batch.y)


def _sums(means: Mapping[str, float], examples: float) -> dict[str, Array]:
    sums = {name: np.float32(float(value) * examples) for name, value in means.items()}
    return {LOSS: np.float32(np.nan), **sums, EXAMPLES: np.float32(examples)}
