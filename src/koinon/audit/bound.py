"""From guesses to a lower bound on epsilon that holds with a stated confidence.

Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, theorem 5.2 and corollary 5.4: of
canaries that are each in or out by a fair coin, an (epsilon, delta)-private run lets nobody guess more than so many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from koinon.tree import Array

CONFIDENCE = 0.95
_LADDER = 6  # numbers of guesses that are tried: all, half of them, a quarter, ...
_FEWEST = 24  # guesses worth a try, where fewer than all are made
_LARGEST = 64.0  # epsilon that is looked for
_MOST = 1 << 14  # canaries that are thought of in `canaries_for`


@dataclass(frozen=True)
class LowerBound:
    """The run is not (``epsilon``, delta)-private for any smaller ``epsilon``, with 95 % confidence.

    ``guesses`` canaries were said to be in or out, ``correct`` of them rightly.
    """

    epsilon: float
    guesses: int
    correct: int


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return how likely ``correct`` of ``guesses`` right ones are at most, if the run is (``epsilon``, ``delta``)-private.

    ``canaries`` counts those of whom nothing was guessed, too.
    """
    return _p_value(canaries, correct, delta, _binomial(guesses, epsilon))


def _p_value(canaries: int, correct: int, delta: float, chances: Array) -> float:
    tail = float(chances[correct:].sum())
    if not correct:
        return 1.0
    below = np.cumsum(chances[:correct][::-1]) / np.arange(1, correct + 1)
    return min(1.0, tail + 2 * canaries * delta * float(below.max()))


def _binomial(count: int, epsilon: float) -> Array:
    """Return the chances of 0 to ``count`` right answers, each right by ``e**epsilon / (1 + e**epsilon)``."""
    whole = np.array([math.lgamma(k + 1) for k in range(count + 1)])
    right = np.arange(count + 1)
    wrong = count - right
    log = whole[-1] - whole - whole[::-1] - wrong * epsilon - count * math.log1p(math.exp(-epsilon))
    chances: Array = np.exp(log)
    return chances


def epsilon_of(canaries: int, guesses: int, correct: int, delta: float, error: float = 1 - CONFIDENCE) -> float:
    """Return the largest epsilon that the guesses rule out but for a probability of ``error``; 0 if they rule out none.

    >>> round(epsilon_of(canaries=1000, guesses=100, correct=75, delta=1e-4), 3)
    0.673
    """
    low, high = 0.0, _LARGEST
    if p_value(canaries, guesses, correct, low, delta) >= error:
        return 0.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(canaries, guesses, correct, middle, delta) < error else (low, middle)
    return low


def lower_bound(scores: Array, included: Array, delta: float) -> LowerBound:
    """Return the best bound of a few numbers of guesses, all of which hold together with 95 % confidence.

    ``scores`` float64 ``[canaries]``: how much likelier what was seen is if a canary was in, as a logarithm.
    ``included`` bool: whether it was. Either all are guessed, by the sign, or those with the highest scores are guessed
    to be in and as many with the lowest to be out. How many are guessed is fixed before a score is seen, and the error
    is shared among these numbers.
    """
    order, count = np.argsort(scores, kind="stable"), len(scores)
    found = []
    for guesses, error in _ladder(count):
        high = order[count - guesses // 2 :] if guesses < count else np.nonzero(scores > 0)[0]
        low = order[: guesses - guesses // 2] if guesses < count else np.nonzero(scores <= 0)[0]
        correct = int(np.count_nonzero(included[high]) + np.count_nonzero(~included[low]))
        found.append(LowerBound(epsilon_of(count, guesses, correct, delta, error), guesses, correct))
    return max(found, key=lambda bound: bound.epsilon)


def ceiling(canaries: int, delta: float) -> float:
    """Return the bound if every guess were right: an audit with so many canaries can refute no larger epsilon."""
    return max(epsilon_of(canaries, guesses, guesses, delta, error) for guesses, error in _ladder(canaries))


def canaries_for(epsilon: float, delta: float) -> int | None:
    """Return how many canaries can refute a claim of ``epsilon``; None if no number of them that is thought of can."""
    count = 16
    while count <= _MOST and ceiling(count, delta) <= epsilon:
        count *= 2
    return count if count <= _MOST else None


def _ladder(canaries: int) -> Iterator[tuple[int, float]]:
    steps = [canaries, *(n for j in range(1, _LADDER) if (n := canaries >> j) >= _FEWEST)]
    return ((guesses, (1 - CONFIDENCE) / len(steps)) for guesses in steps)
