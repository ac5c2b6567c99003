"""Renyi divergences of Skellam noise on whole numbers, and epsilon from divergences.

Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021; Canonne, Kamath
and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, inf, log

from koinon.errors import ConfigurationError
from koinon.privacy.mechanism import Event

_ORDERS = tuple(sorted({*range(2, 65), *(1 + 2 ** (i / 8) for i in range(-40, 121))}))


def skellam(order: float, variance: float, l2: float, l1: float) -> float:
    """Return the Renyi divergence, at most, of sums that differ by whole numbers of norms ``l2`` and ``l1``.

    ``variance`` is that of the noise in the sum, ``order`` above 1. Corollary 3.6 of Agarwal et al. is for whole orders; between
    two of them ``order - 1`` times the divergence is convex in the order, and 0 at 1 (van Erven and Harremoes, "Renyi
    Divergence and Kullback-Leibler Divergence", 2014).
    """
    below = floor(order)
    between = order - below
    upper = below * _of_whole_order(below + 1, variance, l2, l1) if between else 0.0
    lower = (below - 1) * _of_whole_order(below, variance, l2, l1) if below > 1 else 0.0
    return ((1 - between) * lower + between * upper) / (order - 1)


def divergence(event: Event, order: float) -> float:
    """Return the divergence of one event, at most. Raises ConfigurationError for a sampled one, which is not counted here.

    Of Skellam noise only the least length of the sensitivity is known. Its divergence falls with that length, and of whole
    numbers the L1 norm is at most the square of the L2 norm.
    """
    if event.rate < 1:
        raise ConfigurationError(
            f"{event!r} is sampled, and cannot be added up with noise that clients add themselves."
        )
    if event.steps is None:
        return order / (2 * event.multiplier**2)
    return skellam(order, (event.multiplier * event.steps) ** 2, event.steps, event.steps**2)


def epsilon(spent: Callable[[float], float], delta: float) -> float:
    """Return epsilon at ``delta`` of what has a divergence of ``spent(order)`` (proposition 12 of Canonne et al.)."""
    least = inf
    for order in _ORDERS:
        least = min(least, spent(order) + log(1 - 1 / order) - log(delta * order) / (order - 1))
    return max(0.0, least)


def _of_whole_order(order: int, variance: float, l2: float, l1: float) -> float:
    gaussian = order * l2**2 / (2 * variance)
    return gaussian + min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
