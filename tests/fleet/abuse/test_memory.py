"""The coordinator's memory stays bounded whatever is thrown at it, and comes back down."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import bare
import numpy as np
import psutil
import pytest
from scene import Round, Scene, good_leaves

CHUNK = 4 << 20
MIB = 1 << 20


class Watched:
    """A process and the most memory it has had."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.peak = 0

    @property
    def now(self) -> int:
        """Resident bytes."""
        return int(self._process.memory_info().rss)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, self.now)


def at_once(count: int, what: Callable[[], object]) -> None:
    """Do it ``count`` times in 8 threads."""

    def some() -> None:
        for _ in range(count // 8):
            with contextlib.suppress(OSError):
                what()

    threads = [threading.Thread(target=some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)


def storms(stage: Scene, round_: Round) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Yield names, counts and calls."""
    lyon, path = stage.lyon, round_.lyon.path
    url, head = stage.fleet.url, b"GET / HTTP/1.1\r\nHost: x\r\n"
    digests = {"bytes": 1, "chunk_bytes": CHUNK, "digests": ["0" * 64] * 60_000}
    party = bare.Party(url, "nobody", bare.Key("ed25519"))

    def letter() -> dict:
        return bare.message(lyon, stage.key, round_.number, "keys", "all", np.random.default_rng().bytes(40_000))

    yield "anonymous challenges", 4000, lambda: bare.call(url, "POST", "/v1/challenge", {"client": "c" * 60_000})
    yield "enrolments", 400, lambda: bare.call(url, "POST", "/v1/enrol", party.enrolment("token=" + "x" * 30_000))
    yield "endless heads", 80, lambda: bare.raw(url, head + b"X: " + b"x" * (1 << 20), 2)
    yield "lists of digests", 80, lambda: lyon.call("POST", f"{path}/update", digests)
    yield "large control bodies", 80, lambda: lyon.call("POST", "/v1/session", b" " * (8 << 20))
    yield "bombs", 400, lambda: lyon.call("POST", f"{path}/commit", BOMB, {"Content-Encoding": "gzip"})
    yield "messages", 400, lambda: lyon.call("POST", bare.messages_path(stage.key, round_.number, "keys"), letter())
    yield "wild JSON", 400, lambda: lyon.call("POST", f"{path}/commit", b"[" * 60_000)
    yield (
        "sessions",
        400,
        lambda: bare.call(url, "POST", "/v1/session", lyon.session_body(lyon.challenge()) | {"client": "x"}),
    )
    yield "long polls left", 400, lambda: left(url, f"/v1/runs/{stage.key}/work?wait=60", lyon.token)
    large = bare.Update(lyon, stage.key, round_.lyon.work, bytes(7 << 20), CHUNK)
    large.announce()
    yield "wrong chunks", 80, lambda: large.put(0, b"x" * CHUNK)
    yield "broken chunks", 80, lambda: left(url, f"{path}/update/0", lyon.token, "PUT", CHUNK)


BOMB = gzip.compress(bytes(50 << 20))


def left(url: str, path: str, token: str, method: str = "GET", length: int = 0) -> None:
    """Begin a call and go away in the middle of it."""
    place = url.removeprefix("http://").split(":")
    with socket.create_connection((place[0], int(place[1])), timeout=10) as line:
        line.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        line.sendall(bytes(length // 2))
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_storm_of_requests_takes_more_than_some_memory(own_stage: Scene) -> None:
    stage = own_stage
    for _ in range(5):
        round_ = stage.fresh_round()
    with Watched(stage.fleet.coordinator.pid) as watched:
        idle = watched.now
        for name, count, what in storms(stage, round_):
            watched.peak = 0
            at_once(count, what)
            grown = {"peak": watched.peak - idle, "kept": watched.now - idle}
            print(
                f"{name:24} {count:6} calls: "
                + ", ".join(f"{key} {value / MIB:6.1f} MiB" for key, value in grown.items())
            )
            assert grown["peak"] < 160 * MIB, name
            began = time.monotonic()
            assert bare.call(stage.fleet.url, "GET", "/healthz").status == 200
            assert time.monotonic() - began < 5, f"{name} hold others up"
        assert watched.now - idle < 80 * MIB
    assert round_.lyon.send().status == 200, "and the round goes on"
    assert stage.fresh_round().number == round_.number + 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_worst_headers_of_tensors_take_bounded_memory(own_stage: Scene) -> None:
    """A header is parsed only if it is no longer than the names of an update and of its metrics can need."""
    stage = own_stage
    round_ = stage.fresh_round()
    heads = [
        b'{"a":[' + b"{}," * ((4 << 20) // 3 - 9) + b"{}]}",
        b"{" + b",".join(b'"%x":0' % i for i in range(400_000)) + b"}",
        b"[" + b"[]," * ((4 << 20) // 3 - 2) + b"[]]",
    ]
    with Watched(stage.fleet.coordinator.pid) as watched:
        idle = watched.now
        for _ in range(3):
            for head in heads:
                for update in (round_.lyon, round_.nice):
                    data = bare.file_header(head)
                    answer = stage.update(update.party, update.work, data=data).send()
                    assert (answer.status, answer.code) == (422, "malformed")
        print(f"peak {(watched.peak - idle) / MIB:.1f} MiB, kept {(watched.now - idle) / MIB:.1f} MiB")
        assert watched.peak - idle < 40 * MIB
        assert watched.now - idle < 40 * MIB
    assert bare.file_of(good_leaves()) and round_.lyon.send().status == 200
