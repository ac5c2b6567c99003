"""The four hospitals' records: FLamby's patients and columns, scaled from training patients alone."""

from importlib import resources

import numpy as np
import pytest

from koinon.data.heart import HOSPITALS, INPUTS, flamby, heart, hospitals
from koinon.errors import DataError

SIZES = (303, 261, 46, 130)


def training(data, name: str) -> np.ndarray:
    start, count = data.span(np.array([HOSPITALS.index(name)]), held_out=False)
    return data.x[data.rows[start[0] : start[0] + count[0]]]


def test_the_patients_are_flamby_s() -> None:
    every = hospitals()
    assert tuple(h.name for h in every) == HOSPITALS
    assert tuple(len(h.y) for h in every) == SIZES
    assert all(h.x.shape == (len(h.y), INPUTS) for h in every)
    assert [int((~h.test).sum()) for h in every] == [199, 172, 30, 85]
    assert [round(float(h.y.mean()), 3) for h in every] == [0.459, 0.375, 0.978, 0.777]


def test_the_first_patient_of_cleveland() -> None:
    first = hospitals()[0]  # 63,1,1,145,233,1,2,150,0,2.3,3,0,6,0: age sex - bp chol fbs - rate angina depression
    assert first.x[0].tolist() == [63, 1, 145, 233, 1, 150, 0, 2.3, 0, 0, 0, 0, 1]
    assert first.y[0] == 0


def test_a_scale_comes_from_the_training_patients_of_those_who_gave_it() -> None:
    alone = heart(seed=4, scaled_by=["va"])
    np.testing.assert_allclose(training(alone, "va").mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(training(alone, "va").std(axis=0, ddof=1), 1, atol=1e-5)
    together = heart(seed=4)
    everyone = np.concatenate([training(together, name) for name in HOSPITALS])
    np.testing.assert_allclose(everyone.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(everyone.std(axis=0, ddof=1), 1, atol=1e-5)


def test_what_is_the_same_for_all_of_a_hospital_stays_finite() -> None:
    data = heart(scaled_by=["switzerland"])  # its cholesterol was never measured: 0 throughout
    assert np.isfinite(data.x).all()
    assert np.all(training(data, "switzerland")[:, 3] == 0)


def test_every_seed_draws_another_third() -> None:
    first, second = heart(seed=0), heart(seed=1)
    assert first.held_out.tolist() == second.held_out.tolist() == [104, 89, 16, 45]
    assert not np.array_equal(first.rows, second.rows)
    assert first.fingerprint() == heart(seed=0).fingerprint()


def test_flamby_s_split_is_its_own_and_scaled_hospital_by_hospital() -> None:
    data = flamby()
    assert data.held_out.tolist() == [104, 89, 16, 45]
    assert sorted(data.rows.tolist()) == list(range(740))
    for name in HOSPITALS:
        own = training(data, name)
        np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-5)
        varied = own.std(axis=0, ddof=1)
        assert np.all((np.abs(varied - 1) < 1e-5) | (varied == 0))


def test_the_licence_travels_with_the_records() -> None:
    text = (resources.files("koinon.data") / "heart_disease" / "LICENCE.txt").read_text(encoding="utf-8")
    for word in ("CC BY 4.0", "Janosi", "Steinbrunn", "Pfisterer", "Detrano"):
        assert word in text


def test_an_unknown_hospital_is_named() -> None:
    with pytest.raises(DataError, match=r"hospitals cleveland, .*; found \['paris'\]"):
        heart(scaled_by=["paris"])
