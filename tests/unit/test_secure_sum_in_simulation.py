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
from koinon.runtimes.local import Local

CHANNEL = (kn.Clip(1.0), kn.SecureSum())


def fit(sizes: tuple[int, ...] = (6, 9, 12, 7), channel: tuple[Any, ...] = CHANNEL, **options: Any) -> Any:
    algorithm = kn.fedavg(kn.sgd(0.05), channel=channel)
    clients = dict(list(linear.clients(sizes).items()))
    return kn.fit(linear.LinearModel(), clients, algorithm, stop=kn.Stop(rounds=3), **options)


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


def test_too_few_are_never_added_up() -> None:
    with pytest.raises(ConfigurationError, match="at least 3 clients, and this round has 2"):
        fit((6, 9))


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
