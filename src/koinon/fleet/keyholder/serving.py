"""The key holder's process: HTTPS for one coordinator, who shows a token, one request at a time."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from koinon.errors import FormatError, StoreError
from koinon.fleet.keyholder.office import PUBLIC, Office
from koinon.fleet.service import uvicorn_server
from koinon.fleet.service.bodies import read_chunk
from koinon.fleet.service.listening import address, listening
from koinon.fleet.service.strangers import Strangers
from koinon.fleet.service.uvicorn_server import Door
from koinon.fleet.wire.certificates import ServerCertificate, own_certificate
from koinon.fleet.wire.encrypted_terms import COUNT, KEY, SUM, TERMS, HolderLink
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import kept_secret, write_secret
from koinon.privacy.encrypted_sum.trust import statement
from koinon.privacy.secure_sum.roster import Roster
from koinon.store.lock import lock

_TOKEN, LINK = "token", "coordinator.link"
_MOST_BYTES = 1 << 30
_BYTES = "application/octet-stream"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a key holder serves. ``url`` is the address as the coordinator reaches it, if not the one listened on."""

    folder: Path
    host: str
    port: int
    floor: int
    url: str | None = None
    roster: Roster | None = None


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until the process is told to end. ``say`` is told the key's fingerprint and what the coordinator needs."""
    with ExitStack() as undo:
        undo.callback(os.close, lock(settings.folder))
        office = Office.open(settings.folder, settings.floor, settings.roster, say)
        bound = undo.enter_context(listening(settings.host, settings.port, "The key holder"))
        url = settings.url or address("https", settings.host, bound.getsockname()[1])
        names = ["localhost", "127.0.0.1", socket.gethostname(), urlsplit(url).hostname or ""]
        certificate = own_certificate(settings.folder, list(dict.fromkeys(names)))
        token = kept_secret(settings.folder / _TOKEN, lambda: secrets.token_bytes(32)).hex()
        link = HolderLink(url, token, certificate.fingerprint or "")
        _announce(settings, office, link, say)
        calls = _Calls(office, token, certificate)
        uvicorn_server.serve(calls.application(), [Door(bound, certificate)], _for_ever)


async def _for_ever() -> None:
    """Return never: a signal ends the process."""
    await asyncio.Event().wait()


def _announce(settings: Settings, office: Office, link: HolderLink, say: Callable[[str], None]) -> None:
    path = settings.folder / LINK
    new = not path.exists()
    write_secret(path, f"{link}\n".encode())
    say(f"Key holder at {link.url}, from {settings.folder}")
    say(f"Each app says, by another way than the coordinator: Encrypted(key='{office.public.fingerprint.hex()}')")
    say(f"The public key is in {settings.folder / PUBLIC}")
    if new:
        say(f"The coordinator, and nobody else, gets: koinon serve APP_FILE --keyholder '{link}'")
    else:
        say(f"The coordinator's link is in {path}")
    for line in statement(office.public.floor, settings.roster is not None):
        say(f"  {line}")


class _Calls:
    """What a coordinator may call; everything but the certificate's authority needs the token."""

    def __init__(self, office: Office, token: str, certificate: ServerCertificate) -> None:
        self._office, self._token, self._certificate = office, token, certificate
        self._strangers, self._busy = Strangers(time.monotonic), asyncio.Lock()

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/healthz", self.health),
            Route("/v1/ca", self.authority),
            Route(KEY, self.key),
            Route(TERMS, self.terms),
            Route(COUNT, self.count, methods=["POST"]),
            Route(SUM, self.sum, methods=["POST"]),
        ]
        handlers: Any = {Refusal: _refused, FormatError: _malformed, StoreError: _unavailable, ClientDisconnect: _gone}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def health(self, request: Request) -> Response:
        """Say that it runs."""
        return JSONResponse({"status": "ok"})

    async def authority(self, request: Request) -> Response:
        """Return the certificate that a coordinator compares with its link."""
        assert self._certificate.authority is not None, "the certificate is the key holder's own"
        return PlainTextResponse(self._certificate.authority.read_text(), media_type="application/x-pem-file")

    async def key(self, request: Request) -> Response:
        """Return the public key."""
        self._admit(request)
        return Response(self._office.public.to_bytes(), media_type=_BYTES)

    async def terms(self, request: Request) -> Response:
        """Return which list of clients the key holder goes by."""
        self._admit(request)
        roster = self._office.roster
        return JSONResponse({"roster": None if roster is None else roster.digest().hex()})

    async def sum(self, request: Request) -> Response:
        """Decrypt a blinded sum: return this holder's share of it."""
        return await self._asked(request, self._office.answer)

    async def count(self, request: Request) -> Response:
        """Say how many clients are in a sum, as far as this holder's share of it knows."""
        return await self._asked(request, self._office.count)

    async def _asked(self, request: Request, answer: Callable[[bytes], bytes]) -> Response:
        self._admit(request)
        length = request.headers.get("content-length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _MOST_BYTES:
            raise Refusal(413, "too_large", f"A request has at most {_MOST_BYTES:,} bytes, and says how many.")
        if self._busy.locked():
            raise Refusal(503, "busy", "Another request is being answered. Ask again.")
        async with self._busy:
            body = bytearray()
            await read_chunk(request, int(length), body.extend)
            return Response(await asyncio.to_thread(answer, bytes(body)), media_type=_BYTES)

    def _admit(self, request: Request) -> None:
        """Raise Refusal unless the call has the token."""
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            self._strangers.admit(None if request.client is None else request.client.host)
            raise Refusal(401, "token", "This call needs the token of the link that koinon keyholder has printed.")


async def _refused(request: Request, error: Refusal) -> Response:
    headers = {"Connection": "close"} if request.method == "POST" else None  # of the body not all may be read
    return JSONResponse(error.to_json(), error.status, headers)


async def _malformed(request: Request, error: FormatError) -> Response:
    return JSONResponse(Refusal(422, "malformed", str(error)).to_json(), 422)


async def _unavailable(request: Request, error: StoreError) -> Response:
    return JSONResponse(Refusal(503, "store", str(error)).to_json(), 503)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody is there to read it
