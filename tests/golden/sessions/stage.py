"""A coordinator in this process whose every secret is known beforehand, and whose clock stands still.

Its app is linear regression in numbers that float32 holds exactly, so every machine comes to the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import koinon as kn
import linear
from golden.sessions.tape import SECONDS, Message, make
from koinon.app import App, Resolved, resolve
from koinon.core.algorithm import Synchronous
from koinon.fleet.service import serving
from koinon.fleet.service.serving import serve
from koinon.fleet.service.settings import ServedApp, Settings
from koinon.fleet.wire.link import JoinLink

AGREEMENT = {"app": "golden", "protocol": 1}
ROUNDS = 2
CHUNK_BYTES = 256
COORDINATOR_KEY = bytes(range(32)).hex()
PARTY_KEY = bytes(range(32, 64)).hex()


def resolved() -> Resolved:
    """Return the app with the data of its one party: eight examples to train on, in batches of four, two held out."""
    x = np.float32([[i % 3 - 1, i % 4 - 2] for i in range(10)])
    once = replace(kn.fedavg(kn.sgd(0.25), batch_size=4), schedule=Synchronous(clients=1, shortest=60.0, longest=60.0))
    data = {"lyon": (x, x @ np.float32([1.0, -0.5]))}
    return resolve(App(model=linear.LinearModel(), clients=data, algorithm=once, stop=kn.Stop(rounds=ROUNDS)))


@dataclass(frozen=True)
class Stage:
    """A coordinator that serves. ``token`` is that of its one invitation."""

    port: int
    token: str
    operator: str

    def status(self) -> Mapping[str, Any]:
        """Return the status of the run."""
        sent = Message("GET /v1/admin/status", {"Authorization": f"Bearer {self.operator}"}, b"")
        return dict(make(self.port, sent).answered.json["runs"][0])

    def settle(self) -> None:
        """Wait until the coordinator itself has nothing to do: its client is asked, or the run is over."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            run = self.status()
            if not run["clients"] or run["clients"][0]["standing"] == "asked" or run["state"] == "finished":
                return
            time.sleep(0.005)
        raise AssertionError(f"the coordinator does not come to rest: {run}")


@contextmanager
def stage(folder: Path, patch: pytest.MonkeyPatch, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Stage]:
    """Serve the app until it is over."""
    _foresee(patch)
    folder.mkdir()
    (folder / "coordinator.key").write_text(COORDINATOR_KEY)
    said: list[str] = []
    settings = Settings(folder=folder, version="test", port=0, plain_http=True, chunk_bytes=chunk_bytes)
    thread = threading.Thread(target=serve, args=(settings, [_served()], said.append), daemon=True)
    thread.start()
    yield _opened(folder, said)
    thread.join(SECONDS)
    assert not thread.is_alive(), "the coordinator does not end"


def _opened(folder: Path, said: list[str]) -> Stage:
    """Return the coordinator as soon as it has said where it is."""
    deadline = time.monotonic() + SECONDS
    while len(said) < 3:  # where it is, one join link, where the operator's token lies
        assert time.monotonic() < deadline, f"the coordinator does not begin: {said}"
        time.sleep(0.01)
    link = JoinLink.parse(said[1].split("'")[1])
    operator = json.loads((folder / serving.OPERATOR_FILE).read_text())["token"]
    return Stage(urlsplit(link.url).port or 0, link.token, operator)


def _served() -> ServedApp:
    app = resolved()
    return ServedApp(
        name="golden",
        agreement=AGREEMENT,
        training=app.program(),
        engine=app.engine,
        listen=lambda event: None,
    )


def _foresee(patch: pytest.MonkeyPatch) -> None:
    """Replace the system's generator by digests of a counter, one for each kind of secret, and stop the clock."""

    def drawn(kind: str, numbers: Iterator[int]) -> Any:
        def draw(size: int) -> Any:
            seed = hashlib.sha256(f"{kind} {next(numbers)}".encode()).hexdigest()
            return {"token_hex": seed[: 2 * size], "token_urlsafe": f"{kind}-{seed[:size]}"}.get(kind, seed)

        return draw

    for kind in ("token_hex", "token_urlsafe"):
        patch.setattr(secrets, kind, drawn(kind, itertools.count()))
    patch.setattr(secrets, "token_bytes", lambda size: bytes(size))
    patch.setattr(secrets, "randbits", lambda bits: 100)
    patch.setattr(serving, "time", SimpleNamespace(monotonic=lambda: 1000.0))
