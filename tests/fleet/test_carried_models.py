"""A model that comes with its work, from a coordinator that is broken, cut off or not one; and the digest of a total."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from koinon.fleet.coordinator.total_digest import TotalDigest
from koinon.fleet.participant.connection import Connection, Reach, Unreachable
from koinon.fleet.participant.sending import Exchange
from koinon.fleet.wire.carried import CARRIED, head
from koinon.fleet.wire.signatures import digest

MODEL = bytes(range(256)) * 1000
WORK = {"serial": 7, "model": digest(MODEL), "bytes": len(MODEL)}


@contextmanager
def answering(*bodies: bytes, promised: Sequence[int] = ()) -> Iterator[Connection]:
    """Give a connection to what answers so, one after the other; fewer bytes than ``promised`` end the connection."""
    left = [(body, length) for body, length in zip(bodies, promised or map(len, bodies), strict=True)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body, length = left.pop(0) if len(left) > 1 else left[0]
            self.send_response_only(200)
            self.send_header("Content-Type", CARRIED)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = len(body) < length

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    connection = Connection(Reach(url=f"http://127.0.0.1:{server.server_port}", patience=2.0), lambda line: None)
    connection.renew = lambda: "token"
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_model_comes_with_its_work_or_with_an_answer_that_tells_of_it() -> None:
    for told in (WORK, {"duplicate": False, "work": WORK}):
        with answering(head(told) + MODEL) as connection:
            found, model = connection.carried("GET", "/", None, len(MODEL))
            assert found == told
            assert model is not None and (model[0], bytes(model[1])) == (WORK["model"], MODEL)


def test_a_damaged_model_is_left_where_it_is_and_the_work_is_known() -> None:
    with answering(head(WORK) + MODEL[:-1] + b"x") as connection:
        assert connection.carried("GET", "/", None, len(MODEL)) == (WORK, None)


def test_an_answer_that_was_cut_short_is_asked_for_again() -> None:
    whole = head(WORK) + MODEL
    with answering(whole[:9000], whole, promised=(len(whole), len(whole))) as connection:
        assert connection.carried("GET", "/", None, len(MODEL))[0] == WORK


@pytest.mark.parametrize(
    "body",
    [
        head({**WORK, "bytes": len(MODEL) + 1}) + MODEL,
        head({**WORK, "bytes": -1}) + MODEL,
        head({**WORK, "bytes": "many"}) + MODEL,
        head({"serial": 7}) + MODEL,
        head({"work": None}) + MODEL,
        (1 << 40).to_bytes(8, "little") + MODEL,
        (1 << 16).to_bytes(8, "little") + b"[" * (1 << 16),
        b"\0" * 8,
        b"x",
    ],
    ids=["larger than asked for", "negative", "no number", "no model", "no work", "endless", "deep", "empty", "short"],
)
def test_what_is_not_of_the_protocol_is_no_answer(body: bytes) -> None:
    with answering(body) as connection:
        connection.patience = 0.0
        with pytest.raises(Unreachable):
            connection.carried("GET", "/", None, len(MODEL))


def test_the_digest_of_a_total_is_that_of_its_leaves_whichever_thread_hashes_them() -> None:
    rng = np.random.default_rng(3)
    leaves = {name: rng.integers(-9, 9, size) for name, size in (("b", 5), ("w", 400_000), ("a", 120_000), ("c", 1))}
    with ThreadPoolExecutor(1) as beside:
        sums = TotalDigest(beside)
        for name in ("b", "w", "a", "c"):
            leaf = leaves[name]
            for start in range(0, len(leaf), 65_536):
                sums(name, start, leaf[start : start + 65_536])
            sums(name, 0, leaf[:65_536])  # it was seen before
        lines = [f"{name} {hashlib.sha256(leaves[name].tobytes()).hexdigest()}\n" for name in sorted(leaves)]
        assert sums.result() == digest("".join(lines).encode())
        assert TotalDigest(beside).result() is None


def test_a_coordinator_does_not_say_how_much_memory_a_participant_takes_at_once() -> None:
    asked = []

    class Line:
        def carried(self, method: str, path: str, parts: object, most: int) -> tuple[None, None]:
            asked.append((parse_qs(urlsplit(path).query)["carry"], most))
            return None, None

    for carries in (5000, 1 << 50):
        exchange = Exchange(Line(), "r", SimpleNamespace(model="m"), carries)  # type: ignore[arg-type]
        assert exchange.work() is None
    assert asked == [(["5000"], 5000), ([str(64 << 20)], 64 << 20)]
