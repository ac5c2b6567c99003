"""What is too large, too slow or packed is refused before it takes room, and others do not notice."""

import gzip
import itertools
import json
import resource
import socket
import threading
import time
import zlib

import bare
import psutil
import pytest
from scene import ORIGIN, Round, Scene

CHUNK = 4 << 20
HEADERS = 32 << 10


def head(stage: Scene, line: str, *headers: str) -> bytes:
    """Return a request's head with the session of one party."""
    return "\r\n".join(
        [f"{line} HTTP/1.1", "Host: x", f"Authorization: Bearer {stage.lyon.token}", *headers, "", ""]
    ).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def opened(stage: Scene) -> socket.socket:
    host, port = stage.fleet.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def closes(line: socket.socket, seconds: float) -> tuple[float, bytes]:
    """Return after how many seconds the other side closes, and what it said; fail if it does not."""
    began, said = time.monotonic(), b""
    line.settimeout(seconds)
    try:
        while piece := line.recv(65536):
            said += piece
    except ConnectionError:
        pass
    return time.monotonic() - began, said


def test_a_head_over_32_kib_is_refused(stage: Scene) -> None:
    path = f"/v1/runs/{stage.key}"
    fits = bare.raw(stage.fleet.url, head(stage, f"GET {path}", "X: " + "x" * 30_000, "Connection: close"))
    assert status(fits) == 200
    for big in (
        head(stage, f"GET {path}", "X: " + "x" * HEADERS),
        head(stage, f"GET {path}", *(f"X{i}: y" for i in range(8000))),
        head(stage, f"GET {path}?" + "q" * HEADERS),
        head(stage, "GET /" + "p" * HEADERS),
    ):
        assert status(bare.raw(stage.fleet.url, big)) in (400, 414, 431)


def test_a_head_that_never_ends_takes_no_memory(stage: Scene) -> None:
    host, port = stage.fleet.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        sent = 0
        with pytest.raises(ConnectionError):
            for sent in range(0, 8 << 20, 1 << 14):
                line.sendall(b"X: " + b"x" * ((1 << 14) - 5) + b"\r\n")
                time.sleep(0.001)
    assert sent < 4 << 20


CONTROL = ["/v1/enrol", "/v1/challenge", "/v1/session"]


@pytest.mark.parametrize("path", [*CONTROL, "JOIN", "COMMIT", "FAILURE"])
def test_a_control_body_over_64_kib_is_refused_from_its_announcement(stage: Scene, round_: Round, path: str) -> None:
    path = {"JOIN": f"/v1/runs/{stage.key}/join", "COMMIT": f"{round_.lyon.path}/commit",
            "FAILURE": f"{round_.lyon.path}/failure"}.get(path, path)  # fmt: skip
    for length in ((64 << 10) + 1, 1 << 40, 10**30):
        answer = bare.raw(stage.fleet.url, head(stage, f"POST {path}", f"Content-Length: {length}"), 5)
        assert status(answer) in (400, 413), answer
    answer = stage.lyon.call("POST", path, b" " * (65 << 10))
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_control_body_that_goes_on_without_a_length_is_refused(stage: Scene) -> None:
    piece = b"1000\r\n" + b" " * 4096 + b"\r\n"
    answer = bare.raw(stage.fleet.url, head(stage, "POST /v1/challenge", "Transfer-Encoding: chunked") + piece * 20, 5)
    assert status(answer) == 413


def test_too_many_digests_are_refused(stage: Scene, round_: Round) -> None:
    digests = ["0" * 64] * 70_000
    body = {"bytes": CHUNK * len(digests), "chunk_bytes": CHUNK, "digests": digests}
    answer = stage.lyon.call("POST", f"{round_.lyon.path}/update", body)
    assert answer.status in (413, 0)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (1 << 40, 1),
        (CHUNK * 60_000, 60_000),
        (2**53 - 1, 1),
        (10**30, 1),
        (-1, 1),
        (0, 0),
        (0, 1),
        (1, 2),
        (1, 0),
        (0.5, 1),
    ],
)
def test_an_upload_larger_than_any_update_is_refused_when_it_is_announced(
    stage: Scene, round_: Round, size, count: int
) -> None:
    body = {"bytes": size, "chunk_bytes": CHUNK, "digests": ["0" * 64] * count}
    answer = stage.lyon.call("POST", f"{round_.lyon.path}/update", body)
    assert answer.status in (413, 422)


@pytest.mark.parametrize("chunk_bytes", [0, 1, -1, CHUNK - 1, CHUNK + 1, 1 << 40])
def test_chunks_of_another_size_are_refused(stage: Scene, round_: Round, chunk_bytes: int) -> None:
    body = {"bytes": 8, "chunk_bytes": chunk_bytes, "digests": ["0" * 64]}
    assert stage.lyon.call("POST", f"{round_.lyon.path}/update", body).status in (413, 422)


@pytest.mark.parametrize("item", ["0" * 63, "0" * 65, "G" * 64, "A" * 64, "", "../" * 21 + "a", 0, None, ["0" * 64]])
def test_a_digest_that_is_none_is_refused(stage: Scene, round_: Round, item) -> None:
    body = {"bytes": 8, "chunk_bytes": CHUNK, "digests": [item]}
    assert stage.lyon.call("POST", f"{round_.lyon.path}/update", body).status == 422


def test_a_chunk_is_refused_from_its_announced_length(stage: Scene, round_: Round) -> None:
    round_.lyon.announce()
    for length in (CHUNK + 1, 1 << 40):
        request = head(stage, f"PUT {round_.lyon.path}/update/0", f"Content-Length: {length}")
        assert status(bare.raw(stage.fleet.url, request, 5)) in (413, 422)


def test_a_chunk_without_a_length_is_refused(stage: Scene, round_: Round) -> None:
    round_.lyon.announce()
    data = round_.lyon.data
    body = f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n"
    request = head(stage, f"PUT {round_.lyon.path}/update/0", "Transfer-Encoding: chunked")
    assert status(bare.raw(stage.fleet.url, request + body, 5)) == 411
    both = head(stage, f"PUT {round_.lyon.path}/update/0", "Transfer-Encoding: chunked", f"Content-Length: {len(data)}")
    assert status(bare.raw(stage.fleet.url, both + body, 5)) in (400, 411, 422)
    assert round_.lyon.announce().json == {"have": []}


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Two layers of nothing: 100 MB of zeros."""
    return gzip.compress(zlib.compress(bytes(100 << 20)))


def worked(stage: Scene) -> float:
    """Return the seconds that the coordinator has computed, which a busy machine does not lengthen."""
    times = psutil.Process(stage.fleet.coordinator.pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP", "x"])
def test_no_body_is_unpacked(stage: Scene, round_: Round, coding: str, bomb: bytes) -> None:
    round_.lyon.announce()
    for method, path in (("POST", "/v1/challenge"), ("POST", f"{round_.lyon.path}/update"),
                         ("PUT", f"{round_.lyon.path}/update/0")):  # fmt: skip
        before = worked(stage)
        answer = stage.lyon.call(method, path, bomb, {"Content-Encoding": coding})
        assert (answer.status, answer.code) == (415, "encoding")
        assert worked(stage) - before < 0.2


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"[" * 30_000, b'{"client":' * 6_000,
     b'{"client":"c","client":"d"}x', b'{"client":"\\ud800"}', b'{"client":' + b"9" * 5000 + b"}", b'{"client":NaN}',
     b'{"client":"c","more":1}', b'{"client":{"a":[]}}', b'{"client":null}', '{"client":"c"}'.encode("utf-16")],
)  # fmt: skip
def test_what_is_no_json_of_the_call_is_refused(stage: Scene, body: bytes) -> None:
    for path in (*CONTROL, f"/v1/runs/{stage.key}/join"):
        answer = stage.lyon.call("POST", path, body, {"Content-Type": "application/json"})
        assert (answer.status, answer.code) == (422, "malformed")


@pytest.mark.parametrize("query", ["since=-1", "since=x", "since=" + "9" * 400, "since=1e3", "wait=nan", "wait=inf",
                                   "wait=-1", "since=%C2%B2", "since=&wait=", "since=1&wait=1.5"])  # fmt: skip
def test_a_number_in_a_query_that_is_none_is_refused(stage: Scene, round_: Round, query: str) -> None:
    for path in (f"/v1/runs/{stage.key}/work", bare.messages_path(stage.key, round_.number, "a")):
        answer = stage.lyon.call("GET", f"{path}?{query}")
        assert (answer.status, answer.code) == (422, "malformed")


@pytest.mark.parametrize("range_", ["bytes=5-2", "bytes=-5", "bytes=9999999-", "bytes=0-1,3-4", "items=0-1", "bytes=", "x",
                                    "bytes=" + "9" * 400 + "-", "bytes=0x1-2", "bytes=1-\xb2"])  # fmt: skip
def test_a_range_that_is_none_is_416(stage: Scene, round_: Round, range_: str) -> None:
    answer = stage.lyon.call("GET", f"/v1/blobs/{round_.lyon.work['model']}", headers={"Range": range_})
    assert (answer.status, answer.code) == (416, "range")


def test_requests_that_are_no_http_end_the_connection(stage: Scene) -> None:
    for bad in (b"\0" * 100, b"HELLO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
                b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                b"GET / HTTP/1.1\r\nA : b\r\n\r\n"):  # fmt: skip
        assert status(bare.raw(stage.fleet.url, bad, 15)) in (0, 400)
    assert stage.lyon.call("GET", "/v1/runs").status == 200


def test_a_request_hidden_in_another_is_not_served(stage: Scene, round_: Round) -> None:
    hidden = (
        head(stage, f"POST {round_.lyon.path}/failure", "Content-Length: 14", "Connection: close") + b'{"reason":"x"}'
    )
    for lengths in (("Content-Length: 5", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "Transfer-Encoding: x"),
                    ("Transfer-Encoding: \x0bchunked",), ("Content-Length: +5",)):  # fmt: skip
        bare.raw(stage.fleet.url, head(stage, "POST /v1/challenge", *lengths) + b"0\r\n\r\n" + hidden, 2)
    shown = next(client for client in stage.state()["clients"] if client["name"] == "lyon")
    assert shown["standing"] == "asked"


@pytest.mark.slow
def test_whoever_sends_a_head_slowly_is_left(stage: Scene) -> None:
    with opened(stage) as silent, opened(stage) as dripping:
        stop = time.monotonic() + 25

        def drip() -> None:
            try:
                for letter in itertools.cycle(b"GET / HTTP/1.1\r\nX: " + b"x" * 50):
                    dripping.sendall(bytes([letter]))
                    time.sleep(0.3)
                    if time.monotonic() > stop:
                        return
            except OSError:
                return

        dropper = threading.Thread(target=drip)
        dropper.start()
        assert closes(silent, 20)[0] < 16
        assert closes(dripping, 20)[0] < 20
        dropper.join(30)
        assert not dropper.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("wait", [None, 0.5], ids=["silent", "dripping"])
def test_a_body_that_comes_too_slowly_is_408(stage: Scene, round_: Round, wait: float | None) -> None:
    data = bytes(CHUNK)
    update = bare.Update(stage.lyon, stage.key, round_.lyon.work, data, CHUNK)
    assert update.announce().status == 200
    requests = {
        "chunk": head(stage, f"PUT {update.path}/update/0", f"Content-Length: {len(data)}"),
        "control": head(stage, "POST /v1/challenge", "Content-Length: 9000"),
    }
    for name, request in requests.items():
        with opened(stage) as line:
            line.sendall(request)
            began, said = time.monotonic(), b""
            line.settimeout(wait or 20)
            while time.monotonic() < began + 20 and not said:
                try:
                    said = line.recv(65536)
                except TimeoutError:
                    line.sendall(b" " * 100)
            assert status(said) == 408, (name, said)
            assert time.monotonic() - began < 15
            assert b"connection: close" in said.lower()
    assert update.announce().json == {"have": []}
    assert round_.lyon.send().status == 200, "nobody else was held up, and it may send another"


def test_many_slow_connections_hold_nobody_up(stage: Scene, round_: Round) -> None:
    lines = [opened(stage) for _ in range(200)]
    try:
        for i, line in enumerate(lines):
            line.sendall(head(stage, "POST /v1/challenge", "Content-Length: 9")[: None if i % 2 else 20])
        began = time.monotonic()
        assert round_.lyon.send().status == 200
        assert time.monotonic() - began < 5
    finally:
        for line in lines:
            line.close()


def test_an_upload_that_breaks_off_leaves_nothing_behind(stage: Scene, round_: Round) -> None:
    update = round_.lyon
    update.announce()
    for _ in range(50):
        with opened(stage) as line:
            line.sendall(
                head(stage, f"PUT {update.path}/update/0", f"Content-Length: {len(update.data)}") + update.data[:-1]
            )
    assert update.announce().json == {"have": []}
    assert update.put(0).status == 204
    assert update.commit().status == 200


ALLOWED = "access-control-allow-origin"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:10", "http://127.0.0.1", f"{ORIGIN}.evil.example"]
)
def test_a_page_of_another_origin_is_told_nothing(stage: Scene, origin: str) -> None:
    asking = {
        "Origin": origin,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization",
    }
    for answer in (
        bare.call(stage.fleet.url, "OPTIONS", f"/v1/runs/{stage.key}/work", headers=asking),
        stage.lyon.call("GET", "/v1/runs", headers={"Origin": origin}),
        bare.call(stage.fleet.url, "GET", "/healthz", headers={"Origin": origin}),
    ):
        assert ALLOWED not in answer.headers


def test_a_page_of_an_allowed_origin_may_call(stage: Scene, round_: Round) -> None:
    for method, header in (
        ("GET", "authorization"),
        ("POST", "authorization,content-type"),
        ("PUT", "authorization"),
        ("GET", "range,authorization"),
    ):
        asking = {"Origin": ORIGIN, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
        answer = bare.call(stage.fleet.url, "OPTIONS", f"/v1/runs/{stage.key}/work", headers=asking)
        assert (answer.status, answer.headers[ALLOWED]) == (200, ORIGIN)
        assert "access-control-allow-credentials" not in answer.headers
    answer = stage.lyon.call("GET", f"/v1/blobs/{round_.lyon.work['model']}", headers={"Origin": ORIGIN})
    assert answer.headers[ALLOWED] == ORIGIN
    assert "etag" in answer.headers["access-control-expose-headers"].lower()
    refused = bare.call(stage.fleet.url, "GET", "/v1/runs", headers={"Origin": ORIGIN})
    assert (refused.status, refused.headers[ALLOWED]) == (401, ORIGIN), "an error can be read, too"


def test_every_error_says_what_to_do_in_the_same_form(stage: Scene, round_: Round) -> None:
    answers = [
        stage.lyon.call("GET", "/v1/nothing"),
        stage.lyon.call("DELETE", "/v1/runs"),
        stage.lyon.call("GET", "/v2/runs"),
        stage.lyon.call("PATCH", f"{round_.lyon.path}/update/0"),
        stage.lyon.call("POST", f"{round_.lyon.path.replace('train', 'steal')}/commit", round_.lyon.word()),
        bare.call(stage.fleet.url, "GET", "/v1/runs"),
    ]
    assert bare.statuses(answers) == [404, 405, 404, 405, 404, 401]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert answer.json.keys() >= {"error"} and answer.json["error"].keys() == {"code", "message"}
        assert json.dumps(answer.json).isascii()


@pytest.mark.slow
def test_more_connections_than_the_system_gives_are_got_over(own_stage: Scene) -> None:
    """A stranger takes every file descriptor: the silent are left after their 10 s, and nothing is broken by it."""
    stage = own_stage
    round_ = stage.fresh_round()
    pid = stage.fleet.coordinator.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (96, before[1]))
    lines = [opened(stage) for _ in range(300)]
    try:
        stage.fleet.until("others are served again", lambda: served(stage), 40)
        assert round_.lyon.send().status == 200
    finally:
        for line in lines:
            line.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert stage.fresh_round().number == round_.number + 1
    assert "Traceback" not in stage.fleet.coordinator.said()


def served(stage: Scene) -> bool:
    try:
        return bare.call(stage.fleet.url, "GET", "/healthz").status == 200
    except TimeoutError:
        return False
