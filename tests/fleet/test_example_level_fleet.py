"""DP-SGD between institutions: a ledger about examples, a statement on the page and in the receipts."""

import json
from pathlib import Path

import pytest

from fleet.example_level_app import NAMES
from fleet.processes import Fleet

pytest.importorskip("dp_accounting", reason="needs koinon[privacy]")
APP = Path(__file__).parent / "example_level_app.py"


@pytest.mark.slow
def test_dp_sgd_is_counted_by_examples(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--stay",)) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        fleet.finishes(120)
        said = fleet.until("a statement", lambda: fleet.run()["privacy"], 30)
        assert "epsilon" in said[0] and "for each example" in said[0], said
        (noted,) = (tmp_path / "lyon" / "receipts").iterdir()
    (ledger,) = tmp_path.glob("*/runs/*/privacy-ledger.jsonl")
    header, *entries = map(json.loads, ledger.read_text().splitlines())
    assert header["unit"] == "example"
    assert [entry["round"] for entry in entries] == [1, 2, 3, 4]
    assert all(json.loads(line)["receipt"]["privacy"] for line in noted.read_text().splitlines())
