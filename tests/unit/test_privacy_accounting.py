"""Epsilon and sigma against published and exact figures, and never below what the loss distribution says."""

import math

import pytest

from koinon import privacy
from koinon.errors import ConfigurationError
from koinon.privacy.accountant import composed, composed_renyi, rounds_within
from koinon.privacy.analytic import gaussian_delta, gaussian_sigma
from koinon.privacy.mechanism import Adjacency, Event

DELTA = 1e-5
KNOWN = {
    # (sampling rate, noise multiplier, rounds): (by loss distributions, by Renyi divergences), dp-accounting 0.6.0
    "Abadi et al. 2016": ((0.01, 4.0, 10_000), (0.9470, 1.0355)),
    "TensorFlow Privacy's MNIST, 60 epochs": ((256 / 60_000, 1.1, 14_063), (2.3818, 2.5967)),
    "the same with 1.3, 15 epochs": ((256 / 60_000, 1.3, 3_516), (0.8646, 0.9546)),
    "the same with 0.7, 45 epochs": ((256 / 60_000, 0.7, 10_547), (5.6397, 6.3197)),
    "q=.01, z=1": ((0.01, 1.0, 1_000), (1.8282, 2.1014)),
}


def gaussian(multiplier: float, rate: float = 1.0) -> Event:
    return Event(multiplier, rate, Adjacency.ADD_OR_REMOVE)


@pytest.mark.parametrize("name", KNOWN)
def test_epsilon_is_what_is_known(name: str) -> None:
    (rate, multiplier, rounds), (by_loss, by_renyi) = KNOWN[name]
    found = privacy.epsilon(sampling_rate=rate, noise_multiplier=multiplier, rounds=rounds, delta=DELTA)
    crossed = composed_renyi({gaussian(multiplier, rate): rounds}, DELTA)
    assert round(found, 4) == by_loss
    assert round(crossed, 4) == by_renyi
    assert crossed >= found, "a looser analysis that promises more is wrong"


def test_epsilon_of_gaussians_is_the_exact_one() -> None:
    """A hundred Gaussians of multiplier 10 are one of multiplier 1, of which delta has a formula."""
    found = privacy.epsilon(noise_multiplier=10.0, rounds=100, delta=DELTA)
    assert found == pytest.approx(4.377178, abs=1e-6)
    assert gaussian_delta(1.0, found) == pytest.approx(DELTA, rel=1e-5)
    sampled = privacy.epsilon(noise_multiplier=10.0, sampling_rate=1 - 2.0**-40, rounds=100, delta=DELTA)
    assert sampled == pytest.approx(found, abs=1e-5), "the loss distribution of almost everybody is the formula's"
    assert privacy.epsilon(noise_multiplier=1e9, rounds=1, delta=DELTA) == 0.0


@pytest.mark.parametrize("multiplier", [0.8, 5.0])
@pytest.mark.parametrize("rate", [0.003, 0.3, 1.0])
def test_the_cross_check_never_promises_more(multiplier: float, rate: float) -> None:
    events = {gaussian(multiplier, rate): 50}
    assert composed_renyi(events, DELTA) >= composed(events, DELTA) * (1 - 1e-6)


def test_sigma_of_the_analytic_mechanism_is_what_is_known() -> None:
    known = {0.5: 7.0318, 1: 3.7306, 3: 1.3906, 5: 0.8919, 8: 0.6002, 10: 0.4999, 20: 0.2900}
    assert {epsilon: round(gaussian_sigma(epsilon, DELTA), 4) for epsilon in known} == known
    for epsilon in known:
        sigma = gaussian_sigma(epsilon, DELTA)
        assert gaussian_delta(sigma, epsilon) <= DELTA < gaussian_delta(sigma * (1 - 1e-9), epsilon)


def test_the_analytic_mechanism_agrees_with_the_accountant() -> None:
    found = composed({gaussian(gaussian_sigma(3.0, DELTA)): 1}, DELTA)
    assert found == pytest.approx(3.0, abs=1e-4)


def test_a_calibrated_multiplier_keeps_to_its_epsilon_and_hardly_more() -> None:
    found = privacy.noise_multiplier(epsilon=2.0, sampling_rate=0.01, rounds=1_000, delta=DELTA)
    assert found == pytest.approx(0.9591, abs=2e-4)
    assert privacy.epsilon(sampling_rate=0.01, noise_multiplier=found, rounds=1_000, delta=DELTA) <= 2.0
    less = privacy.epsilon(sampling_rate=0.01, noise_multiplier=found * 0.999, rounds=1_000, delta=DELTA)
    assert less > 2.0


def test_events_of_different_rounds_add_up() -> None:
    some, more = gaussian(10.0), gaussian(20.0)
    # 36 of multiplier 10 and 256 of multiplier 20 are one of 1 / sqrt(36/100 + 256/400).
    assert composed({some: 36, more: 256}, DELTA) == pytest.approx(4.377178, abs=1e-5)
    assert composed({some: 0}, DELTA) == 0.0


def test_the_rounds_of_a_budget_are_as_many_as_fit() -> None:
    event, before = gaussian(2.0, 0.1), {gaussian(2.0, 0.1): 10}
    room = rounds_within(before, event, 2.0, DELTA, 500)
    assert 0 < room < 500
    assert composed({event: 10 + room}, DELTA) <= 2.0 < composed({event: 11 + room}, DELTA)
    assert rounds_within(before, event, 2.0, DELTA, 3) == 3
    assert rounds_within({gaussian(2.0, 0.1): 1000}, event, 2.0, DELTA, 3) == 0


def test_adjacencies_are_not_mixed() -> None:
    both = {gaussian(2.0): 1, Event(2.0, 1.0, Adjacency.REPLACE_ONE): 1}
    with pytest.raises(ConfigurationError, match="two adjacencies"):
        composed(both, DELTA)


@pytest.mark.parametrize(
    "asked",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.1},
        {"delta": 0.0},
        {"delta": 1.0},
        {"rounds": -1},
        {"rounds": 1.5},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(asked) -> None:
    with pytest.raises(ConfigurationError):
        privacy.epsilon(**{"noise_multiplier": 1.0, "rounds": 1, "delta": DELTA, **asked})


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, DELTA), (-1.0, DELTA), (701.0, DELTA), (1.0, 0.0), (1.0, 1.0)])
def test_sigma_of_what_is_out_of_range_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ConfigurationError, match="are needed"):
        gaussian_sigma(epsilon, delta)
