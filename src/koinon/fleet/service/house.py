"""The HTTP shell of the coordinator: who may call, what goes where, how errors are told. It decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from koinon.errors import FormatError, StoreError
from koinon.fleet.coordinator.access import Access, Client
from koinon.fleet.coordinator.mailbox import Mailbox
from koinon.fleet.coordinator.run import FleetRun
from koinon.fleet.service.charged import Charged
from koinon.fleet.service.rounds import Rounds
from koinon.fleet.service.strangers import Strangers
from koinon.fleet.service.waiting import Waiting
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import OwnKey, digest
from koinon.privacy.secure_sum.roster import Roster

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class ServedRun:
    """A run and what its clients are told of it."""

    run: FleetRun
    name: str
    app: str  # hash of the resolved app
    description: Mapping[str, Any]
    algorithm: str
    finished: Rounds
    rounds: int  # at most
    chunk_bytes: int
    at_once: bool  # whether a small update is checked and written down sooner than a thread is woken
    codec: str | None  # what a client must know besides plain float32
    charged: Charged | None  # where noise is counted
    hidden: str | None  # whom a step that hides single updates protects from whom
    roster: Roster | None  # who may take part

    def promises(self) -> tuple[str, ...]:
        """Return all that is said of the run's privacy, a line each."""
        said = () if self.charged is None else self.charged.lines()
        return said if self.hidden is None else (*said, self.hidden)

    def count_the_last(self) -> None:
        """Have what a run that is over has cost counted: whoever looks once is told all of it."""
        if self.charged is not None and self.run.ended is not None:
            self.charged.lines()


@dataclass(frozen=True, kw_only=True)
class House:
    """Everything the calls work with."""

    url: str
    version: str  # of koinon
    access: Access
    mailbox: Mailbox
    runs: Mapping[str, ServedRun]
    key: OwnKey
    authority: Path | None  # the CA certificate that clients pin
    operator: str  # SHA-256 of the operator's token
    waiting: Waiting
    strangers: Strangers
    clock: Callable[[], float]

    def served(self, request: Request) -> ServedRun:
        """Return the run that a path names. Raises Refusal."""
        run = request.path_params["run"]
        if run not in self.runs:
            raise Refusal(404, "unknown", f"There is no run {run[:40]!r}.")
        return self.runs[run]

    def stranger(self, request: Request) -> None:
        """Count a call that is made without a session. Raises Refusal if its address makes too many."""
        self.strangers.admit(None if request.client is None else request.client.host)

    def caller(self, request: Request) -> Client:
        """Return the client whose session a call is made in. Raises Refusal."""
        try:
            return self.access.who(_token(request, "Bearer"))
        except Refusal as refusal:
            if refusal.status == 401:
                self.stranger(request)
            raise

    def operated(self, request: Request) -> None:
        """Raise Refusal unless the call is the operator's."""
        if digest(_token(request, "Bearer").encode()) != self.operator:
            self.stranger(request)
            raise Refusal(
                401, "operator", "This call needs the operator's token: it is in admin.json, in the fleet's folder."
            )

    async def admitted(self, request: Request) -> None:
        """Raise Refusal unless the caller has an unused invitation or a session."""
        if request.headers.get("authorization", "").startswith("Invitation "):
            self.stranger(request)
            if await asyncio.to_thread(self.access.invited, _token(request, "Invitation")):
                return
            raise Refusal(
                401, "invitation", "This invitation does not exist, was used or has expired. Ask for another."
            )
        self.caller(request)


def application(house: House, routes: list[Route], origins: tuple[str, ...]) -> Starlette:
    """Return the ASGI application of a coordinator. ``origins`` are those of web pages that may call it."""
    middleware = []
    if origins:
        allowed = {"allow_methods": ["GET", "POST", "PUT"], "allow_headers": ["Authorization", "Content-Type", "Range"]}
        exposed = ["ETag", "Content-Range", "Accept-Ranges", "Retry-After"]
        middleware.append(Middleware(CORSMiddleware, allow_origins=origins, expose_headers=exposed, **allowed))  # type: ignore[arg-type]
    handlers = {
        HTTPException: _unknown,
        Refusal: _refused,
        FormatError: _malformed,
        StoreError: _unavailable(house),
        ClientDisconnect: _gone,
    }
    everybody = [Route("/healthz", _health(house)), Route("/v1/ca", _authority(house))]
    app = Starlette(routes=[*everybody, *routes], middleware=middleware, exception_handlers=handlers)  # type: ignore[arg-type]
    app.router.redirect_slashes = False
    return app


def _token(request: Request, scheme: str) -> str:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind != scheme or not token:
        raise Refusal(401, "session", f"This call needs the header Authorization: {scheme} TOKEN.")
    return token


def _health(house: House) -> Answer:
    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": house.version})

    return health


def _authority(house: House) -> Answer:
    async def authority(request: Request) -> Response:
        if house.authority is None:
            raise Refusal(
                404, "unknown", "This coordinator's certificate is not its own: the system knows its authority."
            )
        return PlainTextResponse(house.authority.read_text(), media_type="application/x-pem-file")

    return authority


async def _refused(request: Request, error: Refusal) -> Response:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    if error.status in (408, 411, 413, 415) or (error.status == 422 and request.method == "PUT"):
        headers = {"Connection": "close"}  # the rest of the body is not read
    return JSONResponse(error.to_json(), error.status, headers)


async def _unknown(request: Request, error: HTTPException) -> Response:
    word = {404: "unknown", 405: "method"}.get(error.status_code, "malformed")
    message = f"{request.method} {request.url.path[:80]} is no call of this protocol."
    return JSONResponse({"error": {"code": word, "message": message}}, error.status_code, error.headers)


async def _malformed(request: Request, error: FormatError) -> Response:
    return JSONResponse({"error": {"code": "malformed", "message": str(error)}}, 422)


def _unavailable(house: House) -> Callable[[Request, StoreError], Awaitable[Response]]:
    async def unavailable(request: Request, error: StoreError) -> Response:
        served = house.runs.get(request.path_params.get("run", ""))
        if served is not None:  # the operator is told, too
            served.run.trouble.note(str(error))
        refusal = Refusal(503, "store", str(error))
        return JSONResponse(refusal.to_json(), 503, {"Retry-After": "5", "Connection": "close"})

    return unavailable


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody is there to read it
