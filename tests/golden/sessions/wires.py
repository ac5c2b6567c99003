"""Two servers between a client and nothing else: one hands calls on and writes them down, one answers from a tape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from golden.sessions.tape import SENT, Call, Message, depends, make


@dataclass
class Wire:
    """Where a client is to call, and what it has called."""

    port: int
    calls: list[Call] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def handed_on(port: int, settle: Callable[[], None]) -> Iterator[Wire]:
    """Hand every call on to ``port``; ``settle`` is waited for before what depends on it."""

    def answer(wire: Wire, sent: Message) -> Message:
        if depends(sent):
            settle()
        wire.calls.append(make(port, sent))
        return wire.calls[-1].answered

    with _serving(answer) as wire:
        yield wire


@contextmanager
def from_tape(tape: Sequence[Call]) -> Iterator[Wire]:
    """Answer every call as it was answered then, if it is the very call that was made then; note what differs."""

    def answer(wire: Wire, sent: Message) -> Message:
        then = tape[len(wire.calls)] if len(wire.calls) < len(tape) else None
        if then is None or (sent.line, sent.headers, sent.json) != (then.sent.line, then.sent.headers, then.sent.json):
            wire.wrong.append(f"call {len(wire.calls) + 1}: sent {sent!r:.1200}\nrecorded {then and then.sent!r:.1200}")
            return Message(
                "400", {"Content-Type": "application/json"}, b'{"error":{"code":"tape","message":"another call"}}'
            )
        wire.calls.append(then)
        return then.answered

    with _serving(answer) as wire:
        yield wire


@contextmanager
def _serving(answer: Callable[[Wire, Message], Message]) -> Iterator[Wire]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name: value for name in SENT if (value := self.headers.get(name)) is not None}
            answered = answer(wire, Message(f"{self.command} {self.path}", headers, body))
            self.send_response_only(int(answered.line))
            for name, value in answered.headers.items():
                self.send_header(name, value)
            if answered.line != "204":
                self.send_header("Content-Length", str(len(answered.body)))
            self.end_headers()
            self.wfile.write(answered.body)

        do_GET = do_POST = do_PUT = do_HEAD = _handle

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wire = Wire(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
