"""A simulated secure sum shows what the server would see: the sum, and who is in it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon.errors import CompositionError, ConfigurationError
from koinon.round.hidden import too_few_drawn
from koinon.runtimes.local import Local

CHANNEL = (kn.Clip(1.0), kn.SecureSum())


def fit(
    sizes: tuple[int, ...] = (6, 9, 12, 7), channel: tuple[Any, ...] = CHANNEL, cohort: Any = None, rounds: int = 3, **options: Any
) -> Any:  # fmt: skip
    algorithm = kn.fedavg(kn.sgd(0.05), channel=channel, cohort=cohort)
    clients = dict(list(linear.clients(sizes).items()))
    return kn.fit(linear.LinearModel(), clients, algorithm, stop=kn.Stop(rounds=rounds), **options)


def test_it_learns_what_the_clear_sum_learns() -> None:
    hidden, clear = fit(), fit(channel=(kn.Clip(1.0),))
    for name, leaf in hidden.params.items():
        np.testing.assert_allclose(leaf, clear.params[name], atol=3 * 2.0**-20 * 4)
    assert hidden.digest != clear.digest
    assert hidden.metrics["train_loss"] == pytest.approx(clear.metrics["train_loss"], abs=1e-4)


def test_workers_do_not_show_in_the_result() -> None:
    assert fit().digest == fit(runtime="processes", workers=2).digest == fit(engine="reference").digest


def test_the_real_messages_give_the_same_bits() -> None:
    ideal = fit()
    protocol = fit(channel=(kn.Clip(1.0), kn.SecureSum(simulate="protocol")))
    assert protocol.digest == ideal.digest
    assert protocol.metrics == ideal.metrics


def test_no_figure_of_a_single_client_is_left() -> None:
    run = fit()
    record = run.history[-1]
    assert record.rows.metrics == {}
    assert set(np.unique(record.rows.weights)) == {1.0}
    assert not [name for name in record.figures if name.endswith(("_mean", "_worst", "_spread"))]
    assert record.figures["train_loss"] > 0


def test_a_client_that_weighs_too_much_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"weighs 9, and .* has room for 8"):
        fit(channel=(kn.Clip(1.0), kn.SecureSum(largest_weight=8)))


@pytest.mark.parametrize("sampler", [kn.All(), kn.Poisson(0.9), kn.Uniform(2)])
def test_an_app_whose_rounds_can_never_be_added_up_is_refused(sampler: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"draws 2 clients a round, and SecureSum\(\) adds up at least 3"):
        fit((6, 9), cohort=sampler)


def test_too_few_updates_that_can_be_added_are_never_added_up() -> None:
    """Of three clients one diverges: no sum of two is shown, and the words are not those of a draw."""
    clients = {**linear.clients((6, 9)), "odd": (np.full((5, 2), 1e30, np.float32), np.zeros(5, np.float32))}
    algorithm = kn.fedavg(kn.sgd(0.05), channel=CHANNEL)
    with pytest.raises(ConfigurationError, match="at least 3 clients, and this round has 2 .* odd cannot be added"):
        kn.fit(linear.LinearModel(), clients, algorithm, stop=kn.Stop(rounds=1), engine="reference")


DRAWS = (0, 1, 2, 3, 4)  # of four clients; each is drawn within 40 rounds


@pytest.mark.parametrize(
    "options",
    [{}, {"engine": "reference"}, {"runtime": "processes", "workers": 2}, {"simulate": "protocol", "engine": "reference"}],
)  # fmt: skip
def test_a_draw_of_too_few_is_void_as_between_institutions(options: dict[str, Any]) -> None:
    options = dict(options)
    channel = (kn.Clip(1.0), kn.SecureSum(simulate=options.pop("simulate", "ideal")))
    run = fit(channel=channel, cohort=kn.Poisson(0.5), rounds=40, **options)
    reasons = {record.void.get("train") for record in run.history}
    assert reasons == {None, *(why for why in map(too_few_drawn, DRAWS[:3], [3] * 3))}
    for record in run.history:
        assert (record.cohort == 0) == ("train" in record.void) == ("train_loss" not in record.figures)
        assert "loss" in record.figures, "the model that stayed is judged"
    assert run.digest == fit(cohort=kn.Poisson(0.5), rounds=40).digest


def test_a_void_draw_is_charged() -> None:
    pytest.importorskip("dp_accounting", reason="needs koinon[privacy]")
    noisy = (*CHANNEL, kn.GaussianNoise(multiplier=2.0))
    run = fit(channel=noisy, cohort=kn.Poisson(0.4), rounds=12, engine="reference", privacy_test_mode=True)
    assert 0 < sum("train" in record.void for record in run.history) < 12
    assert run.privacy is not None
    assert run.privacy.rounds == 12


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ((kn.SecureSum(),), "Put Clip before it"),
        ((kn.Clip(1.0), kn.SecureSum(), kn.SecureSum()), "one of the two is enough"),
        ((kn.Clip(1.0), kn.Quantise(), kn.SecureSum()), "Drop the codec"),
    ],
)
def test_what_cannot_be_hidden_is_refused(channel: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CompositionError, match=message):
        fit(channel=channel)


def test_rules_of_single_updates_are_refused() -> None:
    algorithm = kn.replace(kn.fedavg(channel=CHANNEL), aggregator=kn.Krum(1))
    with pytest.raises(CompositionError, match="reads each update, but SecureSum.* shows the server only the sum"):
        algorithm.check(frozenset(Local.offers))


def test_central_noise_covers_what_is_hidden() -> None:
    pytest.importorskip("dp_accounting", reason="needs koinon[privacy]")
    run = fit(channel=(*CHANNEL, kn.GaussianNoise(multiplier=0.5)))
    assert run.privacy is not None
    assert run.privacy.guarantee


def test_a_simulation_needs_no_cryptography_unless_it_runs_the_protocol() -> None:
    program = """
import sys
sys.modules["cryptography"] = None
import numpy as np, koinon.errors, koinon as kn
from koinon.testing.models import SoftmaxRegression
from koinon.testing.samples import classified
def run(step):
    channel = (kn.Clip(1.0), step)
    clients = {name: (np.ones((4, 5), np.float32), np.zeros(4, np.int32)) for name in "abcd"}
    kn.fit(SoftmaxRegression(), clients, kn.fedavg(channel=channel), stop=kn.Stop(rounds=1), engine="reference")
run(kn.SecureSum())
try:
    run(kn.SecureSum(simulate="protocol"))
except koinon.errors.UnsupportedError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "pip install 'koinon[privacy]'" in done.stdout
