"""The analytic Gaussian mechanism: the least noise for one (epsilon, delta), at any epsilon.

Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8.
"""

from __future__ import annotations

import math

from koinon.errors import ConfigurationError


def gaussian_delta(sigma: float, epsilon: float) -> float:
    """Return the delta of a Gaussian of standard deviation ``sigma`` on a sum of sensitivity 1, at ``epsilon``."""
    upper = _normal_cdf(0.5 / sigma - epsilon * sigma)
    lower = _normal_cdf(-0.5 / sigma - epsilon * sigma)
    return upper if lower == 0 else upper - math.exp(epsilon + math.log(lower))


def gaussian_sigma(epsilon: float, delta: float) -> float:
    """Return the standard deviation that gives (``epsilon``, ``delta``) to a sum of sensitivity 1, rounded up.

    ``epsilon`` is above 0 and at most 700, ``delta`` in (0, 1). Raises ConfigurationError for others.

    >>> round(gaussian_sigma(1.0, 1e-5), 4)
    3.7306
    """
    if not (0 < epsilon <= 700 and 0 < delta < 1):
        raise ConfigurationError(
            f"An epsilon above 0 (and at most 700) and a delta in (0, 1) are needed; found {epsilon!r} and {delta!r}."
        )
    low, high = 1e-3, 1.0
    while gaussian_delta(high, epsilon) > delta:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, epsilon) > delta else (low, middle)
    return high


def gaussian_epsilon(mean: float, delta: float) -> float:
    """Return the epsilon, rounded up, at ``delta`` of telling N(0, 1) from N(``mean``, 1)."""
    if mean == 0 or gaussian_delta(1 / mean, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(1 / mean, high) > delta:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(1 / mean, middle) > delta else (low, middle)
    return high


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
