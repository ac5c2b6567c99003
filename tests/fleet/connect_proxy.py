"""A small HTTP proxy that knows CONNECT and nothing else, with a password if it is given one.

Names under ``.invalid`` are this machine to it and nowhere to anybody else: who reaches them came through the proxy.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_SECONDS = 30.0
_HEAD_BYTES = 16_384


@dataclass(frozen=True)
class ConnectProxy:
    """Where the proxy listens, and what it was asked for: ``(target, answer's status)`` in order."""

    port: int
    asked: list[tuple[str, int]] = field(default_factory=list)

    def url(self, credentials: str = "") -> str:
        """Return its address, with ``user:password`` if given."""
        return f"http://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"


@contextmanager
def connect_proxy(credentials: str | None = None) -> Iterator[ConnectProxy]:
    """Run a proxy to places on this machine in a thread; ``credentials`` (``user:password``) are asked for if given."""
    loop = asyncio.new_event_loop()
    asked: list[tuple[str, int]] = []
    server = loop.run_until_complete(_serve(asked, credentials))
    proxy = ConnectProxy(server.sockets[0].getsockname()[1], asked)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_SECONDS)
        loop.close()


async def _serve(asked: list[tuple[str, int]], credentials: str | None) -> asyncio.Server:
    wanted = None if credentials is None else f"Basic {base64.b64encode(credentials.encode()).decode()}"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            target = await _asked(reader, writer, wanted, asked)
            if target is not None:
                there = await asyncio.open_connection("127.0.0.1", target)
                try:
                    await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
                finally:
                    there[1].close()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, limit=_HEAD_BYTES)


async def _asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wanted: str | None, asked: list[tuple[str, int]]
) -> int | None:
    """Answer one CONNECT; return the port to go on to, or None."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _SECONDS)).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    host, _, port = target.rpartition(":")
    status = 405 if method != "CONNECT" else 200 if host == "127.0.0.1" or host.endswith(".invalid") else 403
    if wanted is not None and fields.get("proxy-authorization", "").replace("basic", "Basic", 1) != wanted:
        status = 407
    asked.append((target, status))
    extra = 'Proxy-Authenticate: Basic realm="proxy"\r\n' if status == 407 else ""
    length = "" if status == 200 else "Content-Length: 0\r\n"
    writer.write(
        f"HTTP/1.1 {status} {'Connection established' if status == 200 else 'No'}\r\n{extra}{length}\r\n".encode()
    )
    await writer.drain()
    return int(port) if status == 200 else None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()  # this way is over: so is the other


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
