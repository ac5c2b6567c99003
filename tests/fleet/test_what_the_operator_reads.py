"""The operator's commands at a terminal: what they print of a status."""

from pathlib import Path
from typing import Any

import pytest

from koinon.cli import fleet_status
from koinon.errors import ConfigurationError

HERE = Path("koinon-fleet")


def client(name: str, standing: str, heard: float | None, error: str | None = None) -> dict[str, Any]:
    return {
        "client": f"c-{name}", "name": name, "standing": standing, "kind": "p256", "revoked": False,
        "seconds_since_heard": heard, "last_error": error,
    }  # fmt: skip


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: dict[str, Any]) -> list[str]:
    """Return what ``koinon status`` prints."""
    monkeypatch.setattr(fleet_status, "operate", lambda *call: status)
    fleet_status.show_status(HERE, as_json=False)
    return capsys.readouterr().out.splitlines()


def run(**fields: Any) -> dict[str, Any]:
    own = {"name": "heart", "state": "waiting", "round": 0, "rounds": 20, "waits_for": None, "stopped": None}
    return own | {"privacy": None, "open": None, "history": [], "clients": []} | fields


def test_a_status_says_what_is_waited_for_how_long_and_lines_its_columns_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    history = [
        {
            "round": 3,
            "cohort": 2,
            "refused": {},
            "lost": {},
            "seconds": 0.1,
            "train_loss": 0.5,
            "loss": 0.25,
            "auc": None,
        }
    ]
    clients = [client("metz-hospital.example", "asked", 5.2), client("nice", "failed", None, "no column age")]
    waits = "1 of 2 answers: metz-hospital.example (last heard of 5 s ago)"
    shown = run(
        state="training", round=3, waits_for=waits, open={"seconds_left": 190.4}, history=history, clients=clients
    )
    status = {"runs": [shown, run(name="other", state="finished", stopped="cancelled by the operator")]}
    assert said(monkeypatch, capsys, status | {"invitations_open": 1}) == [
        "heart: training, 3 of 20 rounds",
        f"  waits for {waits}; 3 min 10 s left",
        "  loss 0.2500",
        "  metz-hospital.example  asked   heard of 5 s ago",
        "  nice                   failed  not heard of since the start  last error: no column age",
        "other: finished, 0 of 20 rounds",
        "  cancelled by the operator",
        "1 invitation can still be used",
    ]


def test_who_was_revoked_before_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gone = {**client("nice", "revoked", None), "revoked": True}
    monkeypatch.setattr(fleet_status, "operate", lambda *call: {"clients": [gone]})
    fleet_status.revoke_client(HERE, "nice")
    assert capsys.readouterr().out == "nice was revoked before\n"
    with pytest.raises(ConfigurationError, match="no client 'metz'"):
        fleet_status.revoke_client(HERE, "metz")


def test_nobody_is_told_what_to_do_where_nobody_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fleet_status, "operate", lambda *call: {"clients": []})
    fleet_status.show_clients(HERE)
    assert capsys.readouterr().out == "Nobody has enrolled yet. koinon invite koinon-fleet prints a join link.\n"
    assert said(monkeypatch, capsys, {"runs": [run()], "invitations_open": 0}) == ["heart: waiting, 0 of 20 rounds"]
