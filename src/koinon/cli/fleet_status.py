"""``koinon status``, ``clients``, ``revoke``, ``pause``, ``resume`` and ``cancel``: the operator at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from koinon.cli.fleet import operate
from koinon.cli.output import print_json, say
from koinon.core.events import RoundRecord
from koinon.errors import ConfigurationError
from koinon.report.figures import seconds_text
from koinon.report.progress import STAGES, describe

_CHANGED = {
    "pause": "rests; koinon resume goes on with it",
    "resume": "goes on",
    "cancel": "ends; its finished rounds are kept",
}


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print how every run stands."""
    status = operate(folder, "GET", "/v1/admin/status")
    if as_json:
        print_json(status)
        return
    for run in status["runs"]:
        say(f"{run['name']}: {run['state']}, {run['round']} of {run['rounds']} rounds")
        for line in filter(None, _course(run)):
            say(f"  {line}")
        rows = [
            (
                client["name"],
                client["standing"],
                _heard(client),
                f"last error: {client['last_error']}" if client["last_error"] else "",
            )
            for client in run["clients"]
        ]
        for line in _aligned(rows):
            say(f"  {line}")
    if open_links := status["invitations_open"]:
        say("1 invitation can still be used" if open_links == 1 else f"{open_links} invitations can still be used")


def _course(run: dict[str, Any]) -> Iterator[str]:
    """Yield how a run stands."""
    if run["waits_for"]:
        left = None if run["open"] is None else run["open"]["seconds_left"]
        yield f"waits for {run['waits_for']}" + ("" if left is None else f"; {seconds_text(round(left))} left")
    if run["stopped"]:
        yield run["stopped"]
    if run["history"]:
        last = RoundRecord.from_json(run["history"][-1])
        yield describe({name: value for name, value in last.figures.items() if value is not None})
        for stage, why in last.void.items():
            yield f"round {last.round}: no {STAGES[stage]}: {why}"
    for line in run["privacy"] or ():
        yield f"privacy: {line}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines, each column as wide as its longest word."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()


def show_clients(folder: Path) -> None:
    """Print every party."""
    known = operate(folder, "GET", "/v1/admin/status")["clients"]
    for line in _aligned(
        [(c["name"], c["client"], c["kind"], "revoked" if c["revoked"] else _heard(c)) for c in known]
    ):
        say(line)
    if not known:
        say(f"Nobody has enrolled yet. koinon invite {folder} prints a join link.")


def revoke_client(folder: Path, client: str) -> None:
    """Revoke a party by name or identifier."""
    known = operate(folder, "GET", "/v1/admin/status")["clients"]
    named = [c for c in known if client in (c["client"], c["name"])]
    found = [c for c in named if not c["revoked"]]
    if named and not found:
        say(f"{named[0]['name']} was revoked before")
        return
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
    say(f"{found[0]['name']} {_CHANGED[change]}")


def _heard(client: dict[str, Any]) -> str:
    seconds = client["seconds_since_heard"]
    return "not heard of since the start" if seconds is None else f"heard of {seconds:.0f} s ago"
