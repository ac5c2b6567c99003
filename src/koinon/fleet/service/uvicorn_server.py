"""The HTTP server: uvicorn on uvloop, on one address or two, until it is told that all is over, or a signal comes."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette

from koinon.fleet.service.uvicorn_protocol import BulkProtocol
from koinon.fleet.wire.certificates import ServerCertificate

_MOST_CONNECTIONS = 10_000
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Door:
    """A bound socket, the certificate shown on it, and the authority that callers' certificates must be of, if any."""

    bound: socket.socket
    certificate: ServerCertificate | None  # None: no TLS
    client_authority: Path | None = None


def serve(
    app: Starlette, doors: Sequence[Door], until: Callable[[], Awaitable[None]], proxies: Sequence[str] = ()
) -> None:
    """Serve until ``until`` returns, or a signal comes: then what the process does at that signal is done at the end.

    ``proxies`` are believed when they say in ``X-Forwarded-For`` for whom they call.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every client that waits holds a connection
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(_serve([_uvicorn(app, door, proxies) for door in doors], doors, until))
    if told is not None:
        signal.signal(told, before[told])
        signal.raise_signal(told)


async def _serve(
    servers: Sequence[_Server], doors: Sequence[Door], until: Callable[[], Awaitable[None]]
) -> signal.Signals | None:
    """Serve; return the signal that ended it, if one did."""
    told: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_IGN:  # so are Ctrl-C's for a process in a script's background
                continue
            asyncio.get_running_loop().add_signal_handler(number, _tell, told, number)
    serving = [asyncio.create_task(server.serve([door.bound])) for server, door in zip(servers, doors, strict=True)]
    over = asyncio.ensure_future(until())
    ends: list[asyncio.Future[Any]] = [over, told, *serving]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*serving)
    over.cancel()
    return told.result() if told.done() else None


def _tell(told: asyncio.Future[signal.Signals], number: signal.Signals) -> None:
    if not told.done():
        told.set_result(number)


class _Server(uvicorn.Server):
    """uvicorn that leaves the process' signals alone: two of them may share a loop, and one place answers signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _uvicorn(app: Starlette, door: Door, proxies: Sequence[str]) -> _Server:
    certificate, authority = door.certificate, door.client_authority
    config = uvicorn.Config(
        app,
        http=BulkProtocol,
        ws="none",
        lifespan="off",
        log_config=None,  # who owns the process says where its log goes
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
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
    return _Server(config)
