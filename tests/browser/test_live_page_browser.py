"""The live page in a real browser: Chromium reads it from a stand-in that serves made-up statuses.

``live_page.mjs`` drives the browser and judges each scenario; it needs Node, ``playwright-core`` and ``axe-core``
(``NODE_PATH`` says where) and ``/usr/bin/chromium``. ``KOINON_SCREENSHOTS=folder`` keeps pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the stand-in needs Starlette")
pytest.importorskip("uvicorn", reason="the stand-in needs uvicorn")

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fleet.processes import Fleet
from koinon.report.live_page import content_security_policy, live_page

_CHROMIUM = Path("/usr/bin/chromium")
_SCRIPT = Path(__file__).with_name("live_page.mjs")


def _scenarios(call: str) -> list[str]:
    """Return the names of the scenarios in the files beside the script."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(_SCRIPT.parent.glob("live_page_*.mjs")))
    return re.findall(rf'^{call}\("([^"]+)"', text, re.MULTILINE)


_SCENARIOS = _scenarios("scenario")
_REAL = _scenarios("real")
_SECONDS = 240.0  # the longest that one browser is driven
_MISSING = 3  # the script's exit status where a package is missing
TOKEN = "operator-token-of-the-test"


class StandIn:
    """Serve the page, a status that the scenarios set, and write down every call of an operator."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {"version": "0", "seconds": 1.0, "runs": [], "clients": [], "invitations_open": 0}
        self.mode: dict[str, Any] = {}  # how the next streams and calls behave
        self.calls: list[str] = []
        self.streams = 0
        self._epoch = 0  # streams of an older one end
        self._changed = asyncio.Event()
        routes = [
            Route("/", self.page),
            Route("/v1/admin/events", self.events),
            Route("/v1/admin/{rest:path}", self.operate, methods=["POST"]),
            Route("/stand-in", self.control, methods=["GET", "POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def page(self, request: Request) -> Response:
        return HTMLResponse(live_page(), headers={"Content-Security-Policy": content_security_policy()})

    async def events(self, request: Request) -> Response:
        self.calls.append("GET /v1/admin/events")
        if refusal := self._refusal(request):
            return refusal
        if self.mode.get("hang"):
            await self._changed.wait()
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def operate(self, request: Request) -> Response:
        self.calls.append(f"POST {request.url.path}")
        if refusal := self._refusal(request):
            return refusal
        await asyncio.sleep(self.mode.get("call_seconds", 0.0))
        return Response(status_code=204)

    async def control(self, request: Request) -> Response:
        if request.method == "POST":
            wish = await request.json()
            self.status = wish.get("status", self.status)
            self.mode = wish.get("mode", self.mode)
            self._epoch += wish.get("drop", False)
            if wish.get("forget"):
                self.calls.clear()
            self._changed.set()
            self._changed = asyncio.Event()
        return JSONResponse({"calls": self.calls, "streams": self.streams})

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(401, "The operator's token is another. Look into admin.json.")
        if failing := self.mode.get("failing"):
            return _error(failing["status"], failing["message"], failing.get("headers"))
        return None

    async def _stream(self) -> AsyncIterator[bytes]:
        epoch, self.streams = self._epoch, self.streams + 1
        try:
            while self._epoch == epoch:
                changed = self._changed
                if not self.mode.get("silent"):
                    text = self.mode.get("text") or json.dumps(self.status, ensure_ascii=False)
                    event = f": a comment\r\nevent: status\r\ndata: {text}\r\n\r\n".encode()
                    size = self.mode.get("chunk", len(event))
                    for start in range(0, len(event), size):
                        yield event[start : start + size]
                        await asyncio.sleep(0.002 if size < len(event) else 0)
                await changed.wait()
        finally:
            self.streams -= 1


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": "refused", "message": message}}, status_code=status, headers=headers)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Run the stand-in in a thread of its own on a free port of this machine."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            StandIn().app, log_level="error", timeout_graceful_shutdown=1, lifespan="off", ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started, "the stand-in did not start within 20 s"
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


def drive(
    address: str, token: str, *scenarios: str, happens: Callable[[dict[str, Any]], None] = lambda event: None
) -> dict[str, str | None]:
    """Run scenarios in one browser; return each one's failure, None where it passed.

    ``happens`` is told what a scenario asks for on its way.
    """
    node = shutil.which("node")
    if node is None or not _CHROMIUM.exists():
        pytest.skip("Node and /usr/bin/chromium are needed")
    command, pipe = [node, str(_SCRIPT), str(_CHROMIUM), address, token, *scenarios], subprocess.PIPE
    driver = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    ends = threading.Timer(_SECONDS, os.killpg, (driver.pid, signal.SIGKILL))
    ends.start()
    verdicts: dict[str, str | None] = {}
    try:
        assert driver.stdout is not None and driver.stderr is not None
        for row in map(json.loads, driver.stdout):
            if "event" in row:
                happens(row)
            else:
                verdicts[row["name"]] = row["failure"]
        said = driver.stderr.read()
        if driver.wait(20) == _MISSING:
            pytest.skip(said.strip())
        assert driver.returncode == 0, said
        return verdicts
    finally:
        ends.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)  # a browser too, however its driver ended
        driver.communicate(timeout=20)


@pytest.fixture(scope="module")
def verdicts(address: str, request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Every scenario that was asked for, in one browser."""
    asked = {item.name for item in request.session.items}
    return drive(address, TOKEN, *(name for name in _SCENARIOS if f"test_in_the_browser[{name}]" in asked))


@pytest.mark.parametrize("name", _SCENARIOS)
def test_in_the_browser(verdicts: dict[str, str | None], name: str) -> None:
    if failure := verdicts.get(name, "the scenario did not run"):
        pytest.fail(failure, pytrace=False)


_FAULTS = Path(__file__).parents[1] / "fleet" / "faults" / "app.py"


@contextlib.contextmanager
def real(folder: Path, rounds: int, *, tls: bool = False) -> Iterator[Fleet]:
    """Run a coordinator and three participants, slowed so that somebody can watch."""
    slow = {"STEP_SECONDS": "0.03"}
    with Fleet(
        folder, _FAULTS, tls=tls, serve=("--stay",), changes=(f"stop.rounds={rounds}",), environment=slow
    ) as fleet:
        fleet.serve()
        for name in ("lyon", "nice", "paris"):
            fleet.join(name)
        fleet.reaches(1, 60)
        yield fleet


def _token(fleet: Fleet) -> str:
    return str(json.loads((fleet.store / "admin.json").read_text(encoding="utf-8"))["token"])


def test_a_real_run_is_watched_through_a_kill_of_its_coordinator_to_the_end(tmp_path: Path) -> None:
    ends: list[dict[str, Any]] = []
    with real(tmp_path, 60) as fleet:
        deeds = {"kill": fleet.coordinator.kill, "start": fleet.coordinator.start, "ended": lambda: None}

        def happens(event: dict[str, Any]) -> None:
            deeds[event["event"]]()
            ends.append(event)

        verdicts = drive(fleet.url, _token(fleet), _REAL[0], happens=happens)
        run = fleet.run() if fleet.coordinator.alive else {}
    assert verdicts == {_REAL[0]: None}, verdicts[_REAL[0]]
    assert [end["event"] for end in ends] == ["kill", "start", "ended"]
    assert (ends[-1]["digest"], ends[-1]["round"]) == (run["digest"], 60)


def test_a_real_participant_is_revoked_and_a_real_run_cancelled(tmp_path: Path) -> None:
    with real(tmp_path, 500, tls=True) as fleet:
        verdicts = drive(fleet.url, _token(fleet), _REAL[1])
        status = fleet.admin("GET", "/v1/admin/status")
    assert verdicts == {_REAL[1]: None}, verdicts[_REAL[1]]
    assert status["runs"][0]["state"] == "cancelled"
    assert [party["name"] for party in status["clients"] if party["revoked"]] == ["nice"]
