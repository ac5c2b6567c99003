"""``koinon status``, ``clients``, ``revoke``, ``pause``, ``resume`` and ``cancel``: the operator at a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koinon.cli.fleet import operate
from koinon.cli.output import print_json, say
from koinon.errors import ConfigurationError
from koinon.report.figures import number


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print how every run stands."""
    status = operate(folder, "GET", "/v1/admin/status")
    if as_json:
        print_json(status)
        return
    for run in status["runs"]:
        say(f"{run['name']}: {run['state']}, {run['round']} of {run['rounds']} rounds")
        if run["waits_for"]:
            say(f"  waits for {run['waits_for']}")
        if run["stopped"]:
            say(f"  {run['stopped']}")
        if run["history"]:
            last = run["history"][-1]
            figures = [f"{name} {number(value)}" for name, value in last.items() if isinstance(value, float)]
            say(f"  round {last['round']}: {', '.join(figures)}")
        for line in run["privacy"] or ():
            say(f"  privacy: {line}")
        for client in run["clients"]:
            say(
                f"  {client['name']:<20}  {client['standing']:<9}  {_heard(client)}  {client['last_error'] or ''}".rstrip()
            )
    if status["invitations_open"]:
        say(f"{status['invitations_open']} invitations can still be used")


def show_clients(folder: Path) -> None:
    """Print every party."""
    for client in operate(folder, "GET", "/v1/admin/status")["clients"]:
        gone = "  revoked" if client["revoked"] else ""
        say(f"{client['name']:<20}  {client['client']}  {client['kind']}  {_heard(client)}{gone}")


def revoke_client(folder: Path, client: str) -> None:
    """Revoke a party by name or identifier."""
    known = operate(folder, "GET", "/v1/admin/status")["clients"]
    found = [c for c in known if client in (c["client"], c["name"]) and not c["revoked"]]
    if not found:
        raise ConfigurationError(f"There is no client {client!r}. koinon clients {folder} lists them.")
    operate(folder, "POST", f"/v1/admin/clients/{found[0]['client']}/revoke", {})
    say(f"{found[0]['name']} may no longer take part")


def change_run(folder: Path, run: str | None, change: str) -> None:
    """Pause, resume or cancel a run by name or identifier."""
    runs = operate(folder, "GET", "/v1/admin/status")["runs"]
    found: list[dict[str, Any]] = [r for r in runs if run in (None, r["run"], r["name"])]
    if len(found) != 1:
        names = ", ".join(r["name"] for r in runs)
        raise ConfigurationError(
            f"Say which run: {names}." if run is None else f"There is no run {run!r}. There is {names}."
        )
    operate(folder, "POST", f"/v1/admin/runs/{found[0]['run']}/{change}", {})
    say(f"{found[0]['name']}: {change} is noted")


def _heard(client: dict[str, Any]) -> str:
    seconds = client["seconds_since_heard"]
    return "not heard of since the start" if seconds is None else f"heard of {seconds:.0f} s ago"
