"""Membership inference: can the final model tell the examples it was trained on from others of the same clients?

The attack compares losses (Yeom et al., CSF 2018). What counts is how many members it finds while it hardly ever errs,
not how well it does on average: Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from koinon.data.dataset import FederatedDataset, NumberedNames
from koinon.tree import Array

FALSE_ALARMS = 0.01
_RESAMPLES = 500


@dataclass(frozen=True)
class MembershipScore:
    """How well losses tell members from non-members: each figure with its 95 % bootstrap interval.

    ``auc`` in [0, 1] is the probability that a member has the smaller loss of the two; 0.5 is chance. ``found`` is the
    share of members that are found by a threshold that takes at most 1 % of the non-members for members, so none where
    there are fewer than 100; 0.01 is chance.
    """

    members: int
    non_members: int
    auc: float
    auc_interval: tuple[float, float]
    found: float
    found_interval: tuple[float, float]


@dataclass(frozen=True)
class Halves:
    """Clients that train on half of their examples, and the row numbers of both halves."""

    training: FederatedDataset
    members: Array  # int32
    non_members: Array  # int32

    def examples(self, most: int, draw: np.random.Generator) -> tuple[FederatedDataset, Array]:
        """Return up to ``most`` examples, half of them members, each as a client to be judged; and who is a member."""
        chosen = [
            draw.choice(half, size=min(len(half), most // 2), replace=False)
            for half in (self.members, self.non_members)
        ]
        rows = np.concatenate(chosen)
        count = len(rows)
        each = replace(
            self.training,
            names=NumberedNames(count),
            rows=rows,
            offsets=np.arange(count + 1, dtype=np.int64),
            held_out=np.ones(count, np.int32),
        )
        return each, np.arange(count) < len(chosen[0])


def halve(data: FederatedDataset, draw: np.random.Generator) -> Halves:
    """Leave out half of each client's training examples, by chance; a client of one keeps it.

    What a client holds out for judging it goes on holding out: it is in neither half.
    """
    clients = np.arange(len(data))
    (starts, counts), (held_starts, held) = (data.span(clients, held_out=part) for part in (False, True))
    members, others, rows = [], [], []
    for start, count, held_start, kept in zip(starts, counts, held_starts, held, strict=True):
        own = draw.permutation(data.rows[start : start + count])
        half = -(-int(count) // 2)
        members.append(own[:half])
        others.append(own[half:])
        rows += [own[:half], data.rows[held_start : held_start + kept]]
    sizes = np.array([len(own) for own in members]) + held
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    training = replace(data, rows=np.concatenate(rows).astype(np.int32), offsets=offsets)
    return Halves(training, np.concatenate(members), np.concatenate(others))


def membership(losses: Array, member: Array, draw: np.random.Generator) -> MembershipScore | None:
    """Return how well ``losses`` (float64 ``[examples]``) tell who is a ``member`` (bool); None if there is none of a kind.

    An example whose loss is not finite counts as one of the largest.
    """
    losses = np.nan_to_num(losses, nan=np.inf, posinf=np.inf)
    inside, outside = losses[member], losses[~member]
    if not (len(inside) and len(outside)):
        return None

    def interval(figure: Callable[[Array, Array], float]) -> tuple[float, float]:
        figures = [
            figure(draw.choice(inside, len(inside)), draw.choice(outside, len(outside))) for _ in range(_RESAMPLES)
        ]
        low, high = np.quantile(figures, [0.025, 0.975])
        return float(low), float(high)

    auc, found = area(inside, outside), found_at(inside, outside)
    return MembershipScore(len(inside), len(outside), auc, interval(area), found, interval(found_at))


def area(members: Array, non_members: Array) -> float:
    """Return the probability that a member's loss is the smaller one, a tie counted as half."""
    other = np.sort(non_members)
    above = len(other) - np.searchsorted(other, members, side="right")
    ties = np.searchsorted(other, members, side="right") - np.searchsorted(other, members, side="left")
    return float((above + ties / 2).mean() / len(other))


def found_at(members: Array, non_members: Array) -> float:
    """Return the share of members below the loss that at most 1 % of the non-members fall below."""
    other = np.sort(non_members)
    threshold = other[int(FALSE_ALARMS * len(other))]
    return float(np.mean(members < threshold))
