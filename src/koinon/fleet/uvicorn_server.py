"""The HTTP server: uvicorn on uvloop, on one address or two, until it is told that all is over, or a signal comes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop
from starlette.applications import Starlette

from koinon.fleet.certificates import ServerCertificate
from koinon.fleet.uvicorn_protocol import BulkProtocol

_MOST_CONNECTIONS = 10_000


@dataclass(frozen=True)
class Listener:
    """A bound socket, the certificate shown on it, and the authority that callers' certificates must be of, if any."""

    bound: socket.socket
    certificate: ServerCertificate | None  # None: no TLS
    client_authority: Path | None = None


def serve(app: Starlette, listeners: Sequence[Listener], until: Callable[[], Awaitable[None]]) -> None:
    """Serve until ``until`` returns or the process is told to end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, listeners, until))


async def _serve(app: Starlette, listeners: Sequence[Listener], until: Callable[[], Awaitable[None]]) -> None:
    servers = [_uvicorn(app, listener) for listener in listeners]
    serving = [
        asyncio.create_task(server.serve([listener.bound])) for server, listener in zip(servers, listeners, strict=True)
    ]
    over = asyncio.ensure_future(until())
    await asyncio.wait([over, *serving], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*serving)
    over.cancel()


def _uvicorn(app: Starlette, listener: Listener) -> uvicorn.Server:
    certificate, authority = listener.certificate, listener.client_authority
    config = uvicorn.Config(
        app,
        http=BulkProtocol,
        ws="none",
        lifespan="off",
        log_config=None,  # who owns the process says where its log goes
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than a long poll and what stands between usually allow
        timeout_graceful_shutdown=2,  # the default waits for ever on connections that are kept open
        limit_concurrency=_MOST_CONNECTIONS,
        ssl_certfile=None if certificate is None else certificate.certificate,
        ssl_keyfile=None if certificate is None else certificate.key,
        ssl_ca_certs=None if authority is None else str(authority),
        ssl_cert_reqs=ssl.CERT_NONE if authority is None else ssl.CERT_REQUIRED,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return uvicorn.Server(config)
