"""A simulated encrypted sum is the secure sum's, and shows what the server would see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon.errors import CompositionError, ConfigurationError

KEY = "0f" * 32


def fit(step: Any, *after: Any) -> Any:
    clients = dict(list(linear.clients((6, 9, 12, 7)).items()))
    algorithm = kn.fedavg(kn.sgd(0.05), channel=(kn.Clip(1.0), step, *after))
    return kn.fit(linear.LinearModel(), clients, algorithm, stop=kn.Stop(rounds=2), engine="reference")


def test_it_is_the_secure_sum() -> None:
    run = fit(kn.Encrypted(key=KEY))
    assert run.digest == fit(kn.SecureSum()).digest
    assert run.history[-1].rows.metrics == {}
    assert set(np.unique(run.history[-1].rows.weights)) == {1.0}


def test_a_client_that_weighs_too_much_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"weighs 9, and Encrypted.* has room for 8"):
        fit(kn.Encrypted(key=KEY, largest_weight=8))


def test_central_noise_covers_what_is_hidden() -> None:
    pytest.importorskip("dp_accounting", reason="needs koinon[privacy]")
    run = fit(kn.Encrypted(key=KEY), kn.GaussianNoise(multiplier=0.5))
    assert run.privacy is not None
    assert run.privacy.guarantee


@pytest.mark.parametrize("key", ["", "0f" * 31, "0F" * 32, "zz" * 32])
def test_a_key_is_a_fingerprint(key: str) -> None:
    with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
        kn.Encrypted(key=key)


def test_several_keys_are_different_fingerprints_in_the_apps_order() -> None:
    other = "f0" * 32
    for key in ((), (KEY, KEY), tuple(f"{i:064x}" for i in range(17))):
        with pytest.raises(ConfigurationError, match="1 to 16 different key holders"):
            kn.Encrypted(key=key)
    with pytest.raises(ConfigurationError, match="64 hexadecimal digits; found 'zz"):
        kn.Encrypted(key=(KEY, "zz" * 32))
    assert kn.Encrypted(key=KEY).keys == (KEY,)
    assert kn.Encrypted(key=[other, KEY]).keys == (other, KEY)  # type: ignore[arg-type]
    assert fit(kn.Encrypted(key=(KEY, other))).digest == fit(kn.Encrypted(key=KEY)).digest
    said = kn.Encrypted(key=(KEY, other)).protection(roster=True)
    assert "Sums that 2 key holders share are experimental." in said
    assert "experimental" not in kn.Encrypted(key=KEY).protection(roster=True)


def test_a_sum_that_cannot_be_exact_is_refused_before_it_runs() -> None:
    step = kn.Encrypted(key=KEY, fraction_bits=30, largest_weight=1 << 20)
    with pytest.raises(ConfigurationError, match="is not exact"):
        step.payload_bytes({"weights": 5}, 20)


def test_it_hides_once() -> None:
    with pytest.raises(CompositionError, match="one of the two is enough"):
        fit(kn.Encrypted(key=KEY), kn.SecureSum())


def test_its_protection_is_that_of_the_page() -> None:
    step = kn.Encrypted(key=KEY)
    assert "honest but curious one only" in step.protection(roster=False)
    assert "is shown no update, whatever it does: only sums of at least 3 clients" in step.protection(roster=True)
    for roster in (True, False):
        assert "Coordinator and key holder together learn every update." in step.protection(roster=roster)
