"""How many rounds in a row came to nothing, for want of whom, what is said of it, and what is written."""

import json
import logging
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
import sqlalchemy as sa

from koinon.cli import fleet_status
from koinon.core.events import RoundRecord
from koinon.core.types import Purpose
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.ledger import Ledger, StageRow
from koinon.fleet.coordinator.machine import SILENT
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.coordinator.voids import UNWILLING, Voids, void_reason
from koinon.fleet.service.log import LoggedLedger
from koinon.fleet.service.rounds import Rounds

GOOD = RoundRecord(1, 3, {}, {}, 0.1, lost={"nice": SILENT})
VOID = RoundRecord(2, 3, {}, {}, 0.1, lost={"nice": SILENT, "lyon": "void", "rome": "late"}, void={"train": "void"})
UNJUDGED = RoundRecord(3, 3, {}, {}, 0.1, lost={"nice": SILENT}, void={"evaluate": "too few"})


def after(*records: RoundRecord) -> Voids:
    return reduce(Voids.after, records, Voids())


def test_three_in_a_row_are_too_many() -> None:
    assert after(VOID, VOID).awaited == ()
    assert after(VOID, VOID, VOID).awaited == ("nice",)
    assert after(VOID, VOID, VOID, VOID).awaited == ("nice",)
    assert after(VOID, VOID, GOOD, VOID) == Voids(1, ("nice",))
    assert after(VOID, VOID, VOID, UNJUDGED) == Voids(), "an evaluation without a result does not make a round void"


def test_a_draw_of_too_few_is_nobodys_silence() -> None:
    drawn = RoundRecord(
        2, 0, {}, {}, 0.1, void={"train": "2 clients were drawn, and the sum takes 3: nobody was asked"}
    )
    assert after(drawn, drawn, VOID) == Voids(1, ("nice",)), "the run does not rest after the first silence"
    assert after(VOID, VOID, drawn, VOID).awaited == ("nice",), "and does after the third, whatever was drawn between"


def test_a_run_rests_for_want_of_the_unwilling_too() -> None:
    """Else who makes the others refuse, by wrong codes, has used up its rounds before anybody looks."""
    void = RoundRecord(
        2, 3, {}, {}, 0.1, lost={"nice": UNWILLING + "wrong codes", "rome": "failed: no"}, void={"train": "void"}
    )
    assert after(void, void, void).awaited == ("nice",)


def test_what_is_said_names_five() -> None:
    six = [f"site-{i}" for i in range(6)]
    assert void_reason(six, [], 7).startswith(
        "site-0, site-1, site-2, site-3, site-4 and 1 more fell silent before the sum"
    )
    assert (
        void_reason([], [], 3)
        == "too few were here before the sum was opened, which takes 3 clients: nothing of it is known"
    )


def test_who_has_said_why_is_not_called_silent() -> None:
    assert void_reason([], ["rome"], 5).startswith("rome did not go on and said why before the sum")
    assert void_reason(["bern", "lyon"], ["rome"], 5).startswith(
        "bern, lyon fell silent, and rome did not go on and said why before the sum was opened, which takes 5 clients"
    )


def test_why_nobody_judges_is_news_once() -> None:
    rounds = Rounds([UNJUDGED])
    again, other = (
        RoundRecord(i, 3, {}, {}, 0.1, void={"evaluate": why}) for i, why in ((4, "too few"), (6, "others"))
    )
    assert rounds.add(again) is None
    assert rounds.add(RoundRecord(5, 3, {}, {}, 0.1)) is None
    assert rounds.add(other) == "others"
    assert [row.get("void") for row in rounds.shown()] == [{"evaluate": "too few"}] * 2 + [None, {"evaluate": "others"}]


def test_a_stage_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    with FleetStore.open(tmp_path) as store:
        ledger = Ledger(store, "r-1")
        for row in (
            StageRow("model", ("a", "b"), 2, None, {}),
            StageRow("model", ("a", "b"), 2, None, {}, drawn=("a", "b", "c")),
            StageRow("model", ("a", "b"), 0, (), {"a": "void", "b": SILENT}, "void", ("a", "b", "c")),
            StageRow("model", ("a", "b"), 1, ("a",), {"b": "late"}, refusals={"a": UNWILLING + "wrong codes"}),
            StageRow("model", (), 0, (), {}, "void"),
        ):
            ledger.write_stage(3, Purpose.TRAIN, row)
            assert ledger.stage(3, Purpose.TRAIN) == row
        with store.transaction() as rows:  # as it was before there were void stages
            old = {"asked": json.dumps(["a"]), "settled": json.dumps({"clients": ["a"], "lost": {}})}
            rows.execute(sa.update(tables.stages).values(**old))
        assert ledger.stage(3, Purpose.TRAIN) == StageRow("model", ("a",), 0, ("a",), {})


def test_a_stage_is_told_once_to_have_settled_though_somebody_refuses_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    over = StageRow("model", ("a", "b"), 1, ("a",), {"b": "late"})
    refused = {"a": UNWILLING + "wrong codes"}
    with FleetStore.open(tmp_path) as store:
        ledger = LoggedLedger(store, "r-1")
        for row in (over, replace(over, refusals=refused), replace(over, settled=(), refusals=refused, void="void")):
            ledger.write_stage(3, Purpose.TRAIN, row)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "round 3 (train) has 1 of 2 answers",
        "round 3 (train) has no result: void",
        "round 3 (train) has 0 of 2 answers",
    ]


def test_the_status_says_what_the_last_round_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    history = [record.to_json() for record in (UNJUDGED, VOID)]
    run = {"name": "heart", "state": "training", "round": 2, "rounds": 9, "waits_for": None, "stopped": None}
    status = {"runs": [{**run, "history": history, "privacy": None, "clients": []}], "invitations_open": 0}
    monkeypatch.setattr(fleet_status, "operate", lambda *_: status)
    fleet_status.show_status(Path(), as_json=False)
    said = capsys.readouterr().out
    assert "round 2: no update: void" in said
    assert "evaluation" not in said
