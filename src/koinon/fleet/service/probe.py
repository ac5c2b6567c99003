"""The calls of ``koinon doctor``: what runs there are, and bytes to measure the way with. No model ever leaves here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from koinon.fleet.wire.offer import Offer
from koinon.fleet.wire.refusal import Refusal

MOST_BYTES = 16 << 20
_BLOCK = 1 << 20
_AT_ONCE = 4
_SECONDS = 15.0

Admit = Callable[[Request], Awaitable[None]]
"""Let a caller with an unused invitation or a session pass; raise the service's own refusal for anybody else."""


def routes(admit: Admit, offer: Callable[[], Offer]) -> list[Route]:
    """Return ``POST /v1/probe``, ``GET`` and ``PUT /v1/probe/bytes``. At most 4 measurements go on at once."""
    lanes = asyncio.Semaphore(_AT_ONCE)

    async def probe(request: Request) -> Response:
        await admit(request)
        return JSONResponse(offer().described())

    async def give(request: Request) -> Response:
        await admit(request)
        count = _count(request.query_params.get("count"))
        if count is None:
            raise Refusal(400, "count", f"count must be a whole number from 0 to {MOST_BYTES:,}.")
        _refuse_a_crowd(lanes)
        return _RandomBytes(count, lanes)

    async def take(request: Request) -> Response:
        await admit(request)
        count = _count(request.headers.get("content-length"))
        if count is None:
            raise Refusal(413, "too_large", f"Give Content-Length, a whole number from 0 to {MOST_BYTES:,}.")
        _refuse_a_crowd(lanes)
        try:
            async with lanes, asyncio.timeout(_SECONDS):
                return JSONResponse({"bytes": sum([len(piece) async for piece in request.stream()])})
        except TimeoutError as error:
            raise Refusal(408, "slow", f"{count:,} bytes did not arrive within {_SECONDS:g} s.") from error
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it

    return [
        Route("/v1/probe", probe, methods=["POST"]),
        Route("/v1/probe/bytes", give, methods=["GET"]),
        Route("/v1/probe/bytes", take, methods=["PUT"]),
    ]


class _RandomBytes(Response):
    """Bytes that nothing on the way can compress; a caller that takes them too slowly is left."""

    def __init__(self, count: int, lanes: asyncio.Semaphore) -> None:
        headers = {"Content-Length": str(count), "Cache-Control": "no-store"}
        super().__init__(None, 200, headers, "application/octet-stream")
        self._count = count
        self._lanes = lanes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        block = os.urandom(min(self._count, _BLOCK))
        async with self._lanes:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    for start in range(0, self._count, _BLOCK):
                        piece = block[: self._count - start]
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await send({"type": "http.response.body"})


def _refuse_a_crowd(lanes: asyncio.Semaphore) -> None:
    if lanes.locked():
        raise Refusal(503, "busy", "Others are measuring the way just now. Try again in a few seconds.")


def _count(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 8:
        return None
    return int(text) if int(text) <= MOST_BYTES else None
