"""From events to epsilon: privacy loss distributions for the figure, Renyi divergences as a cross-check.

Koskela et al., "Computing Tight Differential Privacy Guarantees Using FFT", AISTATS 2020; Mironov, "Renyi Differential
Privacy", CSF 2017. Both as `dp-accounting` computes them. It is imported in functions only: it takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from koinon.errors import ConfigurationError, UnsupportedError
from koinon.privacy import renyi
from koinon.privacy.analytic import gaussian_epsilon
from koinon.privacy.mechanism import Adjacency, Event

_ORDERS = (*(1 + x / 10 for x in range(10, 100)), *range(11, 64), 80, 128, 256, 512, 1024)
_TOLERANCE = 1e-4  # of a calibrated multiplier, relative
_SMALLEST = 1e-2  # multiplier that is looked for


def epsilon(
    *, noise_multiplier: float, rounds: int, delta: float, sampling_rate: float = 1.0, steps: float | None = None
) -> float:
    """Return epsilon after ``rounds`` releases of a sum with Gaussian noise, by privacy loss distributions.

    ``noise_multiplier`` is the standard deviation over the clipping norm, ``sampling_rate`` in (0, 1] the probability
    of each client's own coin (Poisson sampling), ``delta`` in (0, 1). Adjacent are data sets that differ by one client
    more or less. With ``steps`` the noise is that of ``DistributedNoise(multiplier, steps)``, by Renyi divergences, and nothing is
    sampled. Raises UnsupportedError without ``koinon[privacy]``, ConfigurationError for a value out of range.

    >>> round(epsilon(noise_multiplier=4.0, sampling_rate=0.01, rounds=10_000, delta=1e-5), 4)  # doctest: +SKIP
    0.947
    """
    return composed({_event(noise_multiplier, sampling_rate, steps): _whole(rounds)}, delta)


def noise_multiplier(
    *, epsilon: float, rounds: int, delta: float, sampling_rate: float = 1.0, steps: float | None = None
) -> float:
    """Return the least noise multiplier, to 4 digits and never too small, that keeps to ``epsilon``.

    The arguments are those of :func:`epsilon`. Renyi divergences give a bracket, loss distributions the answer.
    """
    if not 0 < epsilon < math.inf:
        raise ConfigurationError(f"epsilon must be a number above 0; found {epsilon!r}.")
    _whole(rounds)

    def spent(multiplier: float, count: Any) -> float:
        return float(count({_event(multiplier, sampling_rate, steps): rounds}, delta))

    high = 1.0
    while spent(high, composed_renyi) > epsilon:
        high *= 2
    while high > _SMALLEST and spent(high / 2, composed_renyi) <= epsilon:
        high /= 2
    low = high / 2
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spent(middle, composed_renyi) > epsilon else (low, middle)
    low = 0.85 * high
    while (above := spent(low, composed)) <= epsilon:  # the loss distribution needs less noise
        if low <= _SMALLEST:
            return low
        high, low = low, 0.85 * low
    below = spent(high, composed)
    while high / low > 1 + _TOLERANCE:  # epsilon is nearly a power of the multiplier
        share = math.log(above / epsilon) / math.log(above / below) if math.isfinite(above) and below else 0.5
        guess = low * (high / low) ** min(0.95, max(0.05, share))
        for near in (guess * (1 + _TOLERANCE / 3), guess * (1 - _TOLERANCE / 3)):
            if low < near < high:
                found = spent(near, composed)
                low, above = (near, found) if found > epsilon else (low, above)
                high, below = (high, below) if found > epsilon else (near, found)
    return high


def composed(events: Mapping[Event, int], delta: float) -> float:
    """Return epsilon at ``delta`` of all ``events``, each as often as said.

    By loss distributions; where nothing is sampled, by the formula of one Gaussian that all of them are together
    (Dong, Roth and Su, "Gaussian Differential Privacy", 2022, corollary 3.3); where clients add whole numbers as noise, by
    Renyi divergences.
    """
    _check(events, delta)
    if _has_steps(events):
        return _by_renyi(events, delta)
    if all(event.rate == 1 for event in events):
        return gaussian_epsilon(sum(count / event.multiplier**2 for event, count in events.items()) ** 0.5, delta)
    accounting = _accounting()
    from dp_accounting.pld import PLDAccountant

    return _epsilon(PLDAccountant(), accounting, events, delta)


def composed_renyi(events: Mapping[Event, int], delta: float) -> float:
    """Return the same by Renyi divergences: never less than :func:`composed`, but for rounding."""
    _check(events, delta)
    if _has_steps(events):
        return _by_renyi(events, delta)
    accounting = _accounting()
    from dp_accounting.rdp import RdpAccountant

    return _epsilon(RdpAccountant(_ORDERS), accounting, events, delta)


def rounds_within(before: Mapping[Event, int], event: Event, epsilon: float, delta: float, most: int) -> int:
    """Return how many more rounds of ``event``, at most ``most``, keep all within ``epsilon``."""

    def fits(count: int) -> bool:
        return composed({**before, event: before.get(event, 0) + count}, delta) <= epsilon

    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _event(multiplier: float, rate: float, steps: float | None) -> Event:
    if not (0 < multiplier < math.inf and 0 < rate <= 1):
        raise ConfigurationError(
            f"A noise multiplier above 0 and a sampling rate in (0, 1] are needed; found {multiplier!r} and {rate!r}."
        )
    if steps is None:
        return Event(multiplier, rate, Adjacency.ADD_OR_REMOVE)
    if not 1 <= steps < math.inf:
        raise ConfigurationError(f"A clipping norm of at least 1 step is needed; found steps={steps!r}.")
    return Event(multiplier, rate, Adjacency.ZERO_OUT, float(steps))


def _has_steps(events: Mapping[Event, int]) -> bool:
    return any(event.steps is not None for event in events)


def _by_renyi(events: Mapping[Event, int], delta: float) -> float:
    if not any(events.values()):
        return 0.0
    return renyi.epsilon(lambda order: sum(n * renyi.divergence(event, order) for event, n in events.items()), delta)


def _whole(rounds: int) -> int:
    if not (isinstance(rounds, int) and rounds >= 0):
        raise ConfigurationError(f"rounds must be a whole number from 0; found {rounds!r}.")
    return rounds


def _check(events: Mapping[Event, int], delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigurationError(f"delta must lie in (0, 1); found {delta!r}.")
    if len({event.adjacency for event in events}) > 1:
        raise ConfigurationError("Events of two adjacencies cannot be added up. Keep one ledger for each.")


def _epsilon(accountant: Any, accounting: Any, events: Mapping[Event, int], delta: float) -> float:
    for event, count in events.items():
        # A multiplier is over the sensitivity under the event's own adjacency: to the accountant a plain Gaussian.
        gaussian = accounting.GaussianDpEvent(event.multiplier)
        sampled = gaussian if event.rate == 1 else accounting.PoissonSampledDpEvent(event.rate, gaussian)
        if count:
            accountant.compose(sampled, count)
    return float(accountant.get_epsilon(delta))


def require() -> None:
    """Raise UnsupportedError where nothing can be counted; quick, for whoever will count at the end of a long run."""
    if find_spec("dp_accounting") is None:
        raise UnsupportedError(
            "To count what a run costs its clients the package dp-accounting is needed. "
            "Run: pip install 'koinon[privacy]'"
        )


def _accounting() -> Any:
    require()
    import dp_accounting

    return dp_accounting
