"""Metrics are records of sums with a finish: sums add over batches, clients and machines, means do not.

A metric maps a batch to an array of sums and, at the end, the summed array to one figure. Parts that
run inside a compiled program use the array namespace of their arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from koinon.tree import Array, namespace

EXAMPLES = "examples"
LOSS = "loss"
_LOWER_IS_BETTER = ("loss", "error", "mae", "mse", "rmse", "mape", "perplexity", "divergence")


class Metric(Protocol):
    """One figure of a model, as sums."""

    @property
    def name(self) -> str:
        """What the figure is called in a history."""

    def sums(self, y: Array, output: Array, mask: Array) -> Array:
        """Return this batch's share; ``mask`` float32 ``[batch]`` is 0 where a row does not count."""

    def finish(self, sums: Array, examples: float) -> float:
        """Return the figure; ``examples`` is the summed mask."""


@dataclass(frozen=True)
class Accuracy:
    """The share of examples whose largest output is the label, or whose sign is, for one output.

    Outputs ``[batch, classes]`` are scores by class; outputs ``[batch]`` or ``[batch, 1]`` are one logit,
    positive for label 1. Further axes (a sequence) are averaged.
    """

    name: str = "accuracy"

    def sums(self, y: Array, output: Array, mask: Array) -> Array:
        """Return how many examples are right."""
        xp = namespace(output)
        if output.ndim > 1 and output.shape[-1] > 1:
            right = xp.argmax(output, axis=-1) == y.reshape(output.shape[:-1])
        else:
            right = (output > 0) == (y.reshape(output.shape) > 0.5)
        flat = right.reshape(right.shape[0], -1).astype(xp.float32)
        return xp.sum(xp.mean(flat, axis=-1) * mask)

    def finish(self, sums: Array, examples: float) -> float:
        """Return the share."""
        return float(sums) / examples if examples else float("nan")


@dataclass(frozen=True)
class AreaUnderCurve:
    """Area under the ROC curve of one logit, from a histogram of its probability.

    Examples that fall into one of ``bins`` equal bins of ``[0, 1]`` count as ties (one half each), so
    the figure is exact up to the resolution of the bins. ``nan`` where only one label is present.
    Hanley and McNeil, Radiology 143(1), 1982.
    """

    bins: int = 1000
    name: str = "auc"

    def sums(self, y: Array, output: Array, mask: Array) -> Array:
        """Return the histogram ``[2, bins]``: label by binned probability."""
        xp = namespace(output)
        logit = output.reshape(output.shape[0])
        probability = 0.5 * (xp.tanh(0.5 * logit) + 1.0)
        place = xp.clip((probability * self.bins).astype(xp.int32), 0, self.bins - 1)
        positive = (y.reshape(output.shape[0]) > 0.5).astype(xp.float32) * mask
        hot = (place[:, None] == xp.arange(self.bins, dtype=xp.int32)[None, :]).astype(xp.float32)
        return xp.stack([(mask - positive) @ hot, positive @ hot])

    def finish(self, sums: Array, examples: float) -> float:
        """Return the area: the chance that a positive example scores above a negative one."""
        negative, positive = np.asarray(sums, np.float64)
        pairs = negative.sum() * positive.sum()
        below = np.cumsum(negative) - negative
        return float((positive * (below + 0.5 * negative)).sum() / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class MeanSquaredError:
    """The mean of ``(output - y)**2`` over examples and outputs."""

    name: str = "mse"

    def sums(self, y: Array, output: Array, mask: Array) -> Array:
        """Return the summed squares."""
        xp = namespace(output)
        gap = (output - y.reshape(output.shape)).reshape(output.shape[0], -1)
        return xp.sum(xp.mean(gap * gap, axis=-1) * mask)

    def finish(self, sums: Array, examples: float) -> float:
        """Return the mean."""
        return float(sums) / examples if examples else float("nan")


def finish(metrics: Sequence[Metric], sums: Mapping[str, Array]) -> dict[str, float]:
    """Return ``examples``, the mean loss and every metric's figure, from sums."""
    examples = float(sums[EXAMPLES])
    figures = {LOSS: float(sums[LOSS]) / examples if examples else float("nan")}
    figures.update({metric.name: metric.finish(sums[metric.name], examples) for metric in metrics})
    return figures


def lower_is_better(name: str) -> bool:
    """Return whether a smaller figure is a better one, by the name of the metric.

    >>> lower_is_better("test_loss"), lower_is_better("accuracy")
    (True, False)
    """
    return any(part in _LOWER_IS_BETTER for part in name.lower().split("_"))
