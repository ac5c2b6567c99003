"""uvicorn's HTTP protocol with bounds on headers, and with bodies that skip its queue on their way to a file.

uvicorn hands a body over in small pieces, each of which wakes a task; on many uploads at once that costs five times
the work of the transfer. Here an application may take the bytes where they are parsed. An application that does not
know of it works as ever, and one that does works under any other server, too (:func:`koinon.fleet.service.bodies.read_chunk`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from koinon.errors import KoinonError

HEADER_BYTES = 32 << 10
_HEADER_SECONDS = 10.0


class BulkProtocol(HttpToolsProtocol):
    """One connection."""

    _header_bytes = 0
    _direct: _Direct | None = None
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection may wait for its first request only so long."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)
        if self._direct is not None:
            self._direct.over.set()

    def on_message_begin(self) -> None:
        """A request begins; its head may take only so long."""
        super().on_message_begin()
        self._header_bytes, self._direct = 0, None
        self._arm()

    def on_url(self, url: bytes) -> None:
        """Count the head."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the head."""
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Offer the body to the application as it comes."""
        self._disarm()
        super().on_headers_complete()
        direct = self._direct = _Direct(self)
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # an extension of our own
        scope["extensions"] = {"koinon.direct_body": direct}

    def on_body(self, body: bytes) -> None:
        """Hand the body to whoever asked for it."""
        if self._direct is None or not self._direct.take(body):
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is over."""
        super().on_message_complete()
        if self._direct is not None:
            self._direct.over.set()

    def _count(self, *parts: bytes) -> None:
        self._header_bytes += sum(map(len, parts)) + 4
        if self._header_bytes > HEADER_BYTES:
            raise ValueError("the request's head is too large")  # the parser makes it a 400 and closes

    def _arm(self) -> None:
        self._disarm()
        self._patience = self.loop.call_later(_HEADER_SECONDS, self._give_up)

    def _disarm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        """Close a connection whose request does not come: it holds a place that others need."""
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.transport.close()


class _Direct:
    """The rest of one request's body, bytes by bytes."""

    def __init__(self, protocol: BulkProtocol) -> None:
        self._protocol, self._cycle = protocol, protocol.cycle
        self._write: Callable[[bytes], None] | None = None
        self._error: KoinonError | None = None
        self.over = asyncio.Event()

    def take(self, body: bytes) -> bool:
        """Give bytes to whoever asked for them; False if nobody did."""
        if self._write is None:
            return False
        if self._error is None:
            try:
                self._write(body)
            except KoinonError as error:  # raised in the parser it would end the connection without an answer
                self._error = error
                self.over.set()
        return True

    async def into(self, write: Callable[[bytes], None], wait: float) -> bool:
        """Hand bytes to ``write`` for at most ``wait`` seconds; return whether the body is over."""
        self._write = write
        queued, self._cycle.body = bytes(self._cycle.body), bytearray()
        if queued:
            self.take(queued)
        self._continue()
        try:
            async with asyncio.timeout(wait):
                await self.over.wait()
        except TimeoutError:
            return False
        if self._error is not None:
            raise self._error
        return True

    def pause(self) -> None:
        """Read no more for now."""
        self._protocol.flow.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        if not self._protocol.transport.is_closing():
            self._protocol.flow.resume_reading()

    def _continue(self) -> None:
        cycle: Any = self._cycle
        if cycle.waiting_for_100_continue:
            cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        self._protocol.flow.resume_reading()
