"""The page checks the very receipts that koinon signs. Needs Node, no browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet.chains import chain, name, opening
from koinon.fleet.wire.signatures import encoded

HERE = Path(__file__).parent
RECEIPTS = HERE.parents[1] / "examples" / "browser" / "receipts.js"
CLIENT = "c-2"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def findings(receipts: list[Any], sent: list[Any]) -> list[str]:
    began = opening()
    given = {"run": began.run, "app": began.app, "coordinator": encoded(began.coordinator.raw), "client": CLIENT}
    scenario = json.dumps({"receipts": receipts, "opening": given, "sent": sent})
    command = ["node", str(HERE / "receipts.mjs"), str(RECEIPTS)]
    done = subprocess.run(command, input=scenario, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def receipts() -> list[Any]:
    return [sealed.to_json() for sealed in chain()]


def sent() -> list[Any]:
    entries = [(sealed.receipt.round, entry) for sealed in chain() for entry in sealed.receipt.train]
    return [
        {"round": number, "purpose": "train", "root": entry.commit.root}
        for number, entry in entries
        if entry.client == CLIENT and entry.commit is not None
    ]


def test_a_whole_chain_holds_what_the_page_sent() -> None:
    assert len(sent()) == 3
    assert findings(receipts(), sent()) == []


def test_a_changed_receipt_is_found() -> None:
    changed = receipts()
    changed[1]["receipt"]["train"][0]["commit"]["weight"] += 1
    found = findings(changed, sent())
    assert "The receipt of round 2 is not signed by the coordinator." in found
    assert "The receipt of round 3 does not follow the one before it." in found


def test_a_dropped_receipt_is_found() -> None:
    first, _, third = receipts()
    assert "The receipt of round 3 does not follow the one before it." in findings([first, third], [])


def test_what_was_sent_and_is_not_in_a_receipt_is_found() -> None:
    first, *others = sent()
    found = findings(receipts(), [{**first, "root": name("another")}, *others])
    assert found == ["Round 1, train: what was sent is not in the receipt."]
