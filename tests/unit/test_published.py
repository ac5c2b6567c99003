"""The benchmark of published figures stays within their bars."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))


@pytest.mark.slow
def test_fed_heart_disease_as_flamby_reports_it() -> None:
    from published import heart

    table = heart(10)
    pooled_test = {name: row["pooled_test"] for name, row in table.items()}
    assert pooled_test["pooled"] == pytest.approx(0.795, abs=0.01)
    for name in ("fedadam", "fedyogi", "fedadagrad"):
        assert pooled_test[name] == pytest.approx(0.779, abs=0.02)
        assert table[name]["client_mean"] == pytest.approx(0.73, abs=0.02)
        assert pooled_test[name] > pooled_test["fedavg"] + 0.01
    assert pooled_test["fedavg"] == pytest.approx(0.75, abs=0.03)
    assert pooled_test["fedprox"] == pytest.approx(pooled_test["fedavg"], abs=0.005)
    assert pooled_test["scaffold"] == pytest.approx(pooled_test["fedavg"], abs=0.005)
