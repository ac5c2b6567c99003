"""Corrections of a client's gradient: a change of gradient is one small part, not a class per framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from koinon import tree
from koinon.core.ranges import not_negative
from koinon.tree import Tree


class Correction(Protocol):
    """Something added to every local gradient."""

    def correct(self, gradients: Tree, params: Tree, anchor: Tree) -> Tree:
        """Return the corrected gradients; ``anchor`` is the global model of this round."""


@dataclass(frozen=True)
class Proximal:
    """Pull towards the global model: ``g + mu * (w - w_global)``.

    Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, equation 2.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        not_negative(self, "mu")

    def correct(self, gradients: Tree, params: Tree, anchor: Tree) -> Tree:
        """Return the gradient of the loss with ``mu / 2 * |w - w_global|**2`` added."""
        return tree.map(lambda g, w, a: g + self.mu * (w - a), gradients, params, anchor)
