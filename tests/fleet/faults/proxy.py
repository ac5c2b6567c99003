"""A proxy that fails as its seed says: an HTTP/1.1 one that repeats, reorders and loses whole requests.

It speaks plain HTTP on both sides, so it stands where TLS would forbid it to stand. What it corrupts is bulk only
(chunks and blobs, which carry digests): that a control body arrives whole is what TLS is for (wires.py breaks that).
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"})
_LONGEST_S = 90  # above a long poll of 60 s
_DELAY_S = 0.3


class Fault(Enum):
    """What can happen to one request on its way."""

    DROP_REQUEST = auto()
    DROP_ANSWER = auto()
    TRUNCATE_REQUEST = auto()
    TRUNCATE_ANSWER = auto()
    CORRUPT_REQUEST = auto()
    CORRUPT_ANSWER = auto()
    DUPLICATE = auto()  # sent twice, the second answer is thrown away
    REPLAY_LATER = auto()  # sent once more after later requests of other connections
    DELAY = auto()


@dataclass(frozen=True)
class Strange:
    """An answer to give once, in the place of the coordinator's, to a call whose path holds ``part``."""

    part: str
    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    relayed: bool = False  # whether the coordinator hears the call all the same


class FaultyProxy:
    """Relays from ``port`` of 127.0.0.1 to ``upstream``; each request fails with ``probability`` in [0, 1].

    Before that, the first request whose path holds a key of ``first`` fails so, and each of ``strange`` is answered
    once, those for the same call one after the other. ``seen`` counts the faults that were
    made, ``kept`` how often each chunk was answered with 204, by path.
    """

    def __init__(
        self,
        upstream: int,
        *,
        seed: int = 0,
        probability: float = 0.0,
        first: Mapping[str, Fault] | None = None,
        strange: Sequence[Strange] = (),
    ) -> None:
        self.upstream = upstream
        self.probability = probability
        self.first = dict(first or {})
        self.strange = list(strange)  # that is still to be given
        self.seen: Counter[Fault] = Counter()
        self.kept: Counter[str] = Counter()
        self._draw = random.Random(seed)
        self._lock = threading.Lock()
        self._stale: list[_Request] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def fate(self, request: _Request) -> Fault | None:
        """Draw what happens to a request."""
        with self._lock:
            named = next((part for part in self.first if part in request.path), None)
            if named is not None:
                fault = self.first.pop(named)
            elif self._draw.random() < self.probability:
                fault = self._draw.choice(request.possible())
            else:
                return None
            self.seen[fault] += 1
            return fault

    def odd(self, request: _Request) -> Strange | None:
        """Return the strange answer that a request gets."""
        with self._lock:
            found = next((answer for answer in self.strange if answer.part in request.path), None)
            if found is not None:
                self.strange.remove(found)
            return found

    def damaged(self, body: bytes) -> bytes:
        """Return ``body`` with one bit of it turned over."""
        if not body:
            return body
        with self._lock:
            at, bit = self._draw.randrange(len(body)), 1 << self._draw.randrange(8)
        return body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]

    def keep(self, request: _Request) -> None:
        """Keep a request to be sent again later."""
        with self._lock:
            self._stale.append(request)

    def overdue(self) -> list[_Request]:
        """Return what was kept, once something else has gone before it."""
        with self._lock:
            stale, self._stale = self._stale, []
        return stale


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultyProxy


class _Request:
    """A request as it came, sent as often as the fault asks for."""

    def __init__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body
        plain = urlsplit(path).path
        self.chunk = method == "PUT" and "/update" in plain and bool(body)
        self.blob = method == "GET" and plain.startswith("/v1/blobs/")

    def possible(self) -> list[Fault]:
        """Return what can happen to it: a question asked twice would only wait twice."""
        never = {Fault.DUPLICATE, Fault.REPLAY_LATER} if self.method == "GET" else set()
        never |= set() if self.chunk else {Fault.CORRUPT_REQUEST}
        never |= set() if self.blob else {Fault.CORRUPT_ANSWER}
        return [fault for fault in Fault if fault not in never]

    def send(self, port: int, body: bytes | None = None) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send it on a connection of its own and return status, headers and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LONGEST_S)
        try:
            connection.request(self.method, self.path, self.body if body is None else body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def send_half(self, port: int) -> None:
        """Send the head and half the body, and hang up."""
        head = f"{self.method} {self.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in self.headers.items())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(head.encode() + b"\r\n" + self.body[: len(self.body) // 2])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _LONGEST_S
    server: _Server

    def _relay(self) -> None:
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        request = _Request(self.command, self.path, headers, body)
        try:
            odd = self.server.proxy.odd(request)
            if odd is None:
                self._fail(request, self.server.proxy.fate(request))
            else:
                if odd.relayed:
                    request.send(self.server.proxy.upstream)
                self._answer(odd.status, list(odd.headers.items()), odd.body.encode(), whole=True)
        except (OSError, http.client.HTTPException):
            pass  # the coordinator has hung up: so does the proxy

    def _fail(self, request: _Request, fault: Fault | None) -> None:
        proxy = self.server.proxy
        if fault is Fault.DROP_REQUEST:
            return
        if fault is Fault.TRUNCATE_REQUEST:
            request.send_half(proxy.upstream)
            return
        if fault is Fault.DELAY:
            time.sleep(_DELAY_S)
        sent = proxy.damaged(request.body) if fault is Fault.CORRUPT_REQUEST else None
        status, headers, body = request.send(proxy.upstream, sent)
        if request.chunk and status == 204:
            proxy.kept[request.path] += 1
        for stale in proxy.overdue():
            stale.send(proxy.upstream)
        if fault is Fault.DUPLICATE:
            request.send(proxy.upstream)
        if fault is Fault.REPLAY_LATER:
            proxy.keep(request)
        if fault is Fault.DROP_ANSWER:
            return
        if fault is Fault.CORRUPT_ANSWER:
            body = proxy.damaged(body)
        self._answer(status, headers, body, whole=fault is not Fault.TRUNCATE_ANSWER)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, whole: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP | {"content-length"}:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body if whole else body[: len(body) // 2])

    do_GET = do_POST = do_PUT = _relay

    def log_message(self, *_: object) -> None:
        """Say nothing."""
