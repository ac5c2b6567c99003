"""What the operator calls: status, events, invitations, revoking, pausing; and Prometheus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from koinon.fleet.service.bodies import read_record
from koinon.fleet.service.house import House
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.refusal import Refusal

_EVENT_SECONDS = 15.0
_CALM_SECONDS = 0.25  # changes closer than this are told together
_MOST_INVITATIONS = 1000
EVENTS = "events"


@dataclass(frozen=True)
class Invited:
    """How many join links, for whom, for how long."""

    count: int
    name: str | None
    hours: float


def routes(house: House, fingerprint: str | None, look: Callable[[], dict[str, Any]]) -> list[Route]:
    """Return the operator's calls; ``look`` returns the status."""
    calls = _Calls(house, fingerprint, look)
    return [
        Route("/v1/admin/status", calls.status),
        Route("/v1/admin/events", calls.events),
        Route("/v1/admin/invitations", calls.invite, methods=["POST"]),
        Route("/v1/admin/clients/{client}/revoke", calls.revoke, methods=["POST"]),
        Route("/v1/admin/runs/{run}/{change}", calls.change, methods=["POST"]),
    ]


class _Calls:
    def __init__(self, house: House, fingerprint: str | None, look: Callable[[], dict[str, Any]]) -> None:
        self._house, self._fingerprint, self._look = house, fingerprint, look

    async def status(self, request: Request) -> Response:
        self._house.operated(request)
        return JSONResponse(await asyncio.to_thread(self._look))

    async def events(self, request: Request) -> Response:
        self._house.operated(request)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._told(), media_type="text/event-stream", headers=headers)

    async def _told(self) -> AsyncIterator[bytes]:
        with suppress(asyncio.CancelledError):  # by the server's end
            while True:
                waiter = self._house.waiting.waiter(EVENTS)
                data = json.dumps(await asyncio.to_thread(self._look))
                yield f"event: status\ndata: {data}\n\n".encode()
                await asyncio.sleep(_CALM_SECONDS)
                await self._house.waiting.wait(EVENTS, waiter, _EVENT_SECONDS)

    async def invite(self, request: Request) -> Response:
        self._house.operated(request)
        body = await read_record(request, Invited)
        if not 1 <= body.count <= _MOST_INVITATIONS or not 0 < body.hours <= 24 * 366:
            raise Refusal(422, "malformed", f"Ask for 1 to {_MOST_INVITATIONS} invitations, for at most a year.")
        tokens = [await asyncio.to_thread(self._house.access.invite, body.name, body.hours) for _ in range(body.count)]
        self._house.waiting.wake([EVENTS])
        return JSONResponse({"links": [str(JoinLink(self._house.url, token, self._fingerprint)) for token in tokens]})

    async def revoke(self, request: Request) -> Response:
        self._house.operated(request)
        client = request.path_params["client"]
        await asyncio.to_thread(self._house.access.revoke, client)
        for served in self._house.runs.values():
            await asyncio.to_thread(served.run.revoke, client)
        self._house.waiting.wake([EVENTS])
        return Response(status_code=204)

    async def change(self, request: Request) -> Response:
        self._house.operated(request)
        run = self._house.served(request).run
        change = {"pause": run.pause, "resume": run.resume, "cancel": run.cancel}.get(request.path_params["change"])
        if change is None:
            raise Refusal(404, "unknown", "A run can be paused, resumed and cancelled.")
        if run.ended is not None:
            raise Refusal(409, "over", f"The run is over: {run.ended['stopped']}.")
        await asyncio.to_thread(change)
        self._house.waiting.wake([EVENTS])
        return Response(status_code=204)
