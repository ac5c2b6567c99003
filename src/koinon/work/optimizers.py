"""The client's own optimiser: one step on parameters, in plain operators, so one text serves every engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from koinon import tree
from koinon.core.ranges import positive, share
from koinon.tree import Tree


class Optimizer(Protocol):
    """A gradient step. Its state lives for one round of one client and is dropped after it."""

    def init(self, params: Tree) -> Tree:
        """Return the state before the first step."""

    def apply(self, params: Tree, gradients: Tree, state: Tree, rate: Any) -> tuple[Tree, Tree]:
        """Return new parameters and state; ``rate`` multiplies the learning rate."""


@dataclass(frozen=True)
class Sgd:
    """Gradient descent: ``w - learning_rate * g``."""

    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        positive(self, "learning_rate")

    def init(self, params: Tree) -> Tree:
        """Return nothing: SGD keeps no state."""
        return {}

    def apply(self, params: Tree, gradients: Tree, state: Tree, rate: Any) -> tuple[Tree, Tree]:
        """Return ``w - rate * learning_rate * g``."""
        step = self.learning_rate * rate
        return tree.map(lambda w, g: w - step * g, params, gradients), state


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum: ``v = momentum * v + g``, ``w - learning_rate * v``.

    Polyak, USSR Comp. Math. 4(5), 1964; with ``nesterov``, Sutskever et al., ICML 2013.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        positive(self, "learning_rate")
        share(self, "momentum")

    def init(self, params: Tree) -> Tree:
        """Return zero velocity."""
        return {"velocity": tree.zeros(params)}

    def apply(self, params: Tree, gradients: Tree, state: Tree, rate: Any) -> tuple[Tree, Tree]:
        """Return the step along the velocity."""
        step = self.learning_rate * rate
        velocity = tree.map(lambda v, g: self.momentum * v + g, state["velocity"], gradients)
        along = velocity
        if self.nesterov:
            along = tree.map(lambda v, g: self.momentum * v + g, velocity, gradients)
        return tree.map(lambda w, v: w - step * v, params, along), {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction, as Keras computes it. Kingma and Ba, ICLR 2015."""

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        positive(self, "learning_rate", "epsilon")
        share(self, "beta_1", "beta_2")

    def init(self, params: Tree) -> Tree:
        """Return zero moments and a step count of zero."""
        return {"mean": tree.zeros(params), "square": tree.zeros(params), "count": np.float32(0)}

    def apply(self, params: Tree, gradients: Tree, state: Tree, rate: Any) -> tuple[Tree, Tree]:
        """Return the bias-corrected step."""
        count = state["count"] + 1
        step = self.learning_rate * rate * (1 - self.beta_2**count) ** 0.5 / (1 - self.beta_1**count)
        mean = tree.map(lambda m, g: m + (g - m) * (1 - self.beta_1), state["mean"], gradients)
        square = tree.map(lambda s, g: s + (g * g - s) * (1 - self.beta_2), state["square"], gradients)
        moved = tree.map(lambda w, m, s: w - step * m / (s**0.5 + self.epsilon), params, mean, square)
        return moved, {"mean": mean, "square": square, "count": count}


def sgd(learning_rate: float = 0.1, momentum: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Return gradient descent, with momentum if any is asked for.

    >>> sgd(0.05)
    Sgd(learning_rate=0.05)
    """
    if momentum == 0.0:
        return Sgd(learning_rate)
    return Momentum(learning_rate, momentum, nesterov)


def momentum(learning_rate: float = 0.1, momentum: float = 0.9, nesterov: bool = False) -> Momentum:
    """Return gradient descent with momentum."""
    return Momentum(learning_rate, momentum, nesterov)


def adam(learning_rate: float = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> Adam:
    """Return Adam with Keras's defaults."""
    return Adam(learning_rate, beta_1, beta_2, epsilon)
