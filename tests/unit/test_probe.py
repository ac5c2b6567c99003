"""The calls of ``koinon doctor`` are bounded in bytes, in time and in number, and are for invited parties only."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from doctor_servers import OFFER, TOKEN, Served, coordinator

from koinon.errors import FormatError
from koinon.fleet.service import probe
from koinon.fleet.wire.offer import Offer

BYTES = "/v1/probe/bytes"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with coordinator() as running:
        yield running


def ask(
    served: Served, method: str, path: str, body: object = None, token: str = TOKEN, **headers: str
) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)) as connection:
        said = {"Authorization": f"Invitation {token}", **headers}
        connection.request(method, path, body, said, encode_chunked=isinstance(body, Iterator))  # type: ignore[arg-type]
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/probe"), ("GET", f"{BYTES}?count=9"), ("PUT", BYTES)])
def test_nobody_else_is_answered(served: Served, method: str, path: str) -> None:
    assert ask(served, method, path, token="wrong")[0] == 401


def test_the_offer_survives_the_way(served: Served) -> None:
    status, body = ask(served, "POST", "/v1/probe")
    assert status == 200
    assert Offer.read(body) == OFFER
    assert Offer.read(json.dumps({**json.loads(body), "later": 1}).encode()) == OFFER


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"protocol": 1, "version": "1", "runs": []}', b"[" * 100_000])
def test_what_is_no_offer_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError):
        Offer.read(body)


def test_a_negative_size_is_no_offer() -> None:
    body = json.dumps(OFFER.described()).replace('"model_bytes": 1000', '"model_bytes": -1')
    with pytest.raises(FormatError):
        Offer.read(body.encode())


@pytest.mark.parametrize("count", [0, 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_as_many_bytes_as_asked_for(served: Served, count: int) -> None:
    status, body = ask(served, "GET", f"{BYTES}?count={count}")
    assert (status, len(body)) == (200, count)
    assert count < 1000 or len(set(body)) > 200  # random: nothing on the way can compress them


@pytest.mark.parametrize("count", ["", "-1", "1e3", "٣", str(probe.MOST_BYTES + 1), "9" * 400])
def test_more_or_other_bytes_are_refused(served: Served, count: str) -> None:
    path = f"{BYTES}?count={count}".encode().decode("latin-1").replace("\xd9\xa3", "%D9%A3")
    assert ask(served, "GET", path)[0] == 400


def test_bytes_that_come_are_counted_and_dropped(served: Served) -> None:
    assert ask(served, "PUT", BYTES, bytes(100_000)) == (200, b'{"bytes":100000}')


def test_a_body_without_a_length_is_refused(served: Served) -> None:
    assert ask(served, "PUT", BYTES, iter([bytes(10)]))[0] == 413


def test_a_large_body_is_refused_before_it_is_read(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as line:
        head = f"PUT {BYTES} HTTP/1.1\r\nHost: x\r\nAuthorization: Invitation {TOKEN}\r\n"
        line.sendall(f"{head}Content-Length: {probe.MOST_BYTES + 1}\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413")


def test_only_some_measure_at_once_and_none_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 1.5)
    with coordinator() as served:
        head = f"PUT {BYTES} HTTP/1.1\r\nHost: x\r\nAuthorization: Invitation {TOKEN}\r\nContent-Length: 9\r\n\r\n"
        lines = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(4)]
        for line in lines:
            line.sendall(head.encode())
        time.sleep(0.5)
        assert ask(served, "GET", f"{BYTES}?count=9")[0] == ask(served, "PUT", BYTES, b"9")[0] == 503
        assert ask(served, "POST", "/v1/probe")[0] == 200
        for line in lines:
            assert line.recv(100).startswith(b"HTTP/1.1 408")
            line.close()
        assert ask(served, "GET", f"{BYTES}?count=9")[0] == 200


def test_who_asks_for_bytes_and_does_not_take_them_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 1.0)
    with coordinator() as served:
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(10)
        line.connect(("127.0.0.1", served.port))
        head = f"GET {BYTES}?count={probe.MOST_BYTES} HTTP/1.1\r\nHost: x\r\nAuthorization: Invitation {TOKEN}\r\n\r\n"
        line.sendall(head.encode())
        time.sleep(2)
        got = 0
        while piece := line.recv(1 << 20):
            got += len(piece)
        line.close()
        assert got < probe.MOST_BYTES
