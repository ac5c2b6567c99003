"""The live page in a real browser: Chromium reads it from a stand-in that serves made-up statuses.

``live_page.mjs`` drives the browser and judges each scenario; it needs Node, ``playwright-core`` and ``axe-core``
(``NODE_PATH`` says where) and ``/usr/bin/chromium``. ``KOINON_SCREENSHOTS=folder`` keeps pictures.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
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

from koinon.report.live_page import content_security_policy, live_page

_CHROMIUM = Path("/usr/bin/chromium")
_SCRIPT = Path(__file__).with_name("live_page.mjs")
_SCENARIOS = re.findall(r'^scenario\("([^"]+)"', _SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
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


def drive(address: str, token: str, *scenarios: str, seconds: float = 240) -> dict[str, str | None]:
    """Run scenarios in one browser; return each one's failure, None where it passed."""
    node = shutil.which("node")
    if node is None or not _CHROMIUM.exists():
        pytest.skip("Node and /usr/bin/chromium are needed")
    command = [node, str(_SCRIPT), str(_CHROMIUM), address, token, *scenarios]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=os.environ, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return {row["name"]: row["failure"] for row in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def verdicts(address: str, request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Every scenario that was asked for, in one browser."""
    asked = {item.name for item in request.session.items}
    return drive(address, TOKEN, *(name for name in _SCENARIOS if f"test_in_the_browser[{name}]" in asked))


@pytest.mark.parametrize("name", _SCENARIOS)
def test_in_the_browser(verdicts: dict[str, str | None], name: str) -> None:
    if failure := verdicts.get(name, "the scenario did not run"):
        pytest.fail(failure, pytrace=False)
