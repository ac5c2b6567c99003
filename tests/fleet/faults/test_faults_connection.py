"""A participant's calls against a coordinator that is restarted, loses answers and damages blobs, each as it is told."""

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from koinon.errors import FleetError, FormatError
from koinon.fleet.participant.connection import Connection, Reach

GONE = 0
BLOB = b"model" * 1000


class _Script(ThreadingHTTPServer):
    """Answers with the statuses of a list, in order; GONE hangs up."""

    daemon_threads = True
    answers: list[tuple[int, bytes]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Script

    def do_GET(self) -> None:
        """Give the next answer."""
        status, body = self.server.answers.pop(0)
        if status == GONE:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def coordinator(*answers: tuple[int, bytes], says: list[str] | None = None) -> Iterator[Connection]:
    """Give a connection to a coordinator that answers so."""
    server = _Script(("127.0.0.1", 0), _Handler)
    server.answers = list(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    reach = Reach(url=f"http://127.0.0.1:{server.server_address[1]}", patience=20.0)
    connection = Connection(reach, [].append if says is None else says.append)
    connection.renew = lambda: "token"
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_session_that_a_restart_ended_twice_during_one_call_is_begun_twice() -> None:
    ended = (401, json.dumps({"error": {"code": "session", "message": "Begin one."}}).encode())
    with coordinator(ended, (GONE, b""), ended, (200, b'{"round": 3}')) as connection:
        connection.renew = map("session {}".format, itertools.count()).__next__
        assert connection.call("GET", "/v1/runs") == {"round": 3}


def test_a_token_that_is_never_accepted_is_an_error() -> None:
    never = (401, json.dumps({"error": {"code": "session", "message": "Begin one."}}).encode())
    with coordinator(never, never) as connection, pytest.raises(FleetError, match="Begin one"):
        connection.call("GET", "/v1/runs")


class _LongEnough(Exception):
    """The participant has waited for hours."""


def test_a_coordinator_that_is_away_for_hours_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if sum(pauses) > 20_000:
            raise _LongEnough

    monkeypatch.setattr("koinon.fleet.participant.connection.time.sleep", sleep)
    said: list[str] = []
    connection = Connection(Reach(url="http://127.0.0.1:9", patience=86_400.0), said.append)
    connection.renew = lambda: "token"
    with pytest.raises(_LongEnough):
        connection.call("GET", "/v1/runs")
    assert max(pauses) <= 15
    assert said[0].startswith("http://127.0.0.1:9 cannot be reached: ")


def test_why_it_has_to_try_again_is_said() -> None:
    full = (503, json.dumps({"error": {"code": "store", "message": "The disk is full."}}).encode())
    said: list[str] = []
    with coordinator(full, full, full, (200, b"{}"), says=said) as connection:
        connection.call("GET", "/v1/runs")
    assert "answered 503: The disk is full." in said[0]


def test_a_blob_damaged_on_its_way_is_fetched_again() -> None:
    damaged = BLOB.replace(b"m", b"M", 1)
    with coordinator((206, damaged), (206, BLOB)) as connection:
        assert connection.download(hashlib.sha256(BLOB).hexdigest(), len(BLOB)) == BLOB


def test_a_blob_that_is_always_another_is_an_error() -> None:
    with coordinator(*[(206, BLOB[::-1])] * 10) as connection, pytest.raises(FormatError, match="not the one"):
        connection.download(hashlib.sha256(BLOB).hexdigest(), len(BLOB))
