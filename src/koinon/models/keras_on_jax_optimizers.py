"""The optimiser of ``compile()`` as a client's step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from koinon.tree import Tree
from koinon.work.optimizers import Optimizer, adam, sgd

_PLAIN = {"weight_decay": None, "clipnorm": None, "global_clipnorm": None, "clipvalue": None, "use_ema": False,
          "loss_scale_factor": None, "gradient_accumulation_steps": None, "amsgrad": False}  # fmt: skip


def optimizer_of(optimizer: Any, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Optimizer:
    """Return koinon's own SGD or Adam for Keras' plain ones, and any other optimiser as Keras computes it.

    Of a learning-rate schedule the first rate counts: a round begins with a fresh optimiser. The rates of
    later rounds are the algorithm's ``schedule``.
    """
    config = optimizer.get_config()
    rate = float(str(np.float32(float(optimizer.learning_rate))))  # 0.001, not float32's 0.0010000000474974513
    plain = all(config.get(name, value) == value for name, value in _PLAIN.items())
    if plain and type(optimizer).__name__ == "SGD":
        return sgd(rate, config["momentum"], config["nesterov"])
    if plain and type(optimizer).__name__ == "Adam":
        return adam(rate, config["beta_1"], config["beta_2"], config["epsilon"])
    config["learning_rate"] = rate
    return KerasOptimizer(json.dumps({"class_name": type(optimizer).__name__, "config": config}), rate, shapes)


@dataclass(frozen=True)
class KerasOptimizer:
    """Any Keras optimiser, fresh each round, through ``stateless_apply``."""

    config: str
    learning_rate: float
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def init(self, params: Tree) -> Tree:
        """Return its variables as they begin."""
        return {f"{place:03d}": value for place, value in enumerate(self._built[1])}

    def apply(self, params: Tree, gradients: Tree, state: Tree, rate: Any) -> tuple[Tree, Tree]:
        """Return what Keras makes of a step at ``rate`` times the learning rate."""
        optimizer, _ = self._built
        names = [name for name, _ in self.shapes]
        values = [state[name] for name in sorted(state)]
        place = next(i for i, v in enumerate(optimizer.variables) if v is optimizer._learning_rate)
        values[place] = (self.learning_rate * rate) + 0.0 * values[place]
        new, after = optimizer.stateless_apply(values, [gradients[n] for n in names], [params[n] for n in names])
        kept = {f"{i:03d}": value for i, value in enumerate(after)}
        return dict(zip(names, new, strict=True)), kept

    @cached_property
    def _built(self) -> tuple[Any, list[Any]]:
        """Return the optimiser and the values its variables begin with, also from within a traced function."""
        import jax
        import keras

        with jax.ensure_compile_time_eval():
            optimizer = keras.optimizers.deserialize(json.loads(self.config))
            optimizer.build([keras.Variable(np.zeros(shape, np.float32), name=name) for name, shape in self.shapes])
            return optimizer, [np.array(keras.ops.convert_to_numpy(v)) for v in optimizer.variables]

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields: the built optimiser stays."""
        return {"config": self.config, "learning_rate": self.learning_rate, "shapes": self.shapes}
