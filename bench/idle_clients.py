"""Many clients that have nothing to do: what they cost a coordinator at rest, and how soon a new round reaches all.

``python bench/idle_clients.py --clients 2000 [--tls] [--json]`` starts a real coordinator and one load generator that
holds every client's long poll. It prints ``cpu_share`` (the coordinator's CPU seconds a second at rest, over
``--seconds``), ``reach_seconds`` (from the last client's joining, which opens the round, to the last answer that asks for
an update), ``polls_a_second`` and the coordinator's memory. The clients are written into the store beforehand; their
sessions are begun as all sessions are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

WAIT = 30  # seconds of a long poll, as participants ask for
AT_ONCE = 64  # connections that are being made at a time


def coordinator(options: argparse.Namespace) -> None:
    """Serve a run that waits for one client more than are enrolled beforehand."""
    import koinon as kn
    from koinon.app import App, resolve
    from koinon.core.algorithm import Synchronous
    from koinon.fleet.service.serving import serve
    from koinon.fleet.service.settings import ServedApp, Settings
    from koinon.round.stopping import Stop

    def train(params: Any, data: Any, task: Any) -> Any:
        raise AssertionError("nobody trains here")

    app = App(
        model=kn.OwnLoop(params={"w": np.zeros(1000, np.float32)}, train=train),
        clients={"one": (np.zeros((4, 1)), np.zeros(4))},
        algorithm=kn.replace(kn.fedavg(kn.sgd(0.1)), schedule=Synchronous(clients=options.clients)),
        holdout=0.0,
        stop=Stop(rounds=1),
    )
    resolved = resolve(app)
    served = ServedApp(
        name="idle",
        agreement={"bench": "idle"},
        training=resolved.program(),
        engine="reference",
        listen=lambda event: None,
    )
    settings = Settings(folder=Path(options.folder), version="bench", port=0, plain_http=not options.tls, invitations=0)
    serve(settings, [served], lambda line: print(line, flush=True))


def enrol(folder: Path, count: int) -> list[tuple[str, bytes]]:
    """Write clients into a new store; return each one's identifier and secret key."""
    import sqlalchemy as sa

    from koinon.fleet.coordinator import tables
    from koinon.fleet.coordinator.store import FleetStore
    from koinon.fleet.wire.signatures import OwnKey, encoded

    made = [(f"c-{secrets.token_hex(8)}", os.urandom(32)) for _ in range(count)]
    rows = [
        {"client": client, "name": f"idle-{i}", "kind": "ed25519", "key": encoded(OwnKey(secret).public.raw),
         "revoked": False}
        for i, (client, secret) in enumerate(made)
    ]  # fmt: skip
    with FleetStore.open(folder) as store, store.transaction() as connection:
        connection.execute(sa.insert(tables.clients), rows)
    return made


@dataclass
class Client:
    """One client: a connection that is kept open, and little else."""

    client: str
    secret: bytes
    port: int
    context: ssl.SSLContext | None
    token: str = ""
    serial: int | None = None
    asked_at: float | None = None  # when it heard that it has something to do
    polls: int = 0
    wait: int = WAIT  # of the next poll: the first is shorter for most, so that they are spread over time
    _line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Make one call on the connection that is open."""
        if self._line is None:
            self._line = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context, limit=1 << 14)
        reader, writer = self._line
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n"
        head += f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        head += "Content-Type: application/json\r\n" if content else ""
        writer.write(head.encode() + b"\r\n" + content)
        found = await reader.readuntil(b"\r\n\r\n")
        status, length = int(found[9:12]), 0
        for line in found.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        answer = await reader.readexactly(length)
        return status, json.loads(answer) if answer else None

    async def begin(self) -> None:
        """Begin a session."""
        from koinon.fleet.wire.signatures import OwnKey, encoded, signed_text

        _, found = await self.call("POST", "/v1/challenge", {"client": self.client})
        signature = encoded(OwnKey(self.secret).sign(signed_text("session", self.client, found["challenge"])))
        status, opened = await self.call(
            "POST", "/v1/session", {"client": self.client, **found, "signature": signature}
        )
        assert status == 200, opened
        self.token = opened["token"]

    async def join(self, run: Mapping[str, Any]) -> None:
        """Join the run."""
        said = {"app": run["app"], "train_examples": 4, "held_out_examples": 0, "codecs": [], "versions": {}}
        status, answer = await self.call("POST", f"/v1/runs/{run['run']}/join", said)
        assert status == 204, answer

    async def wait_for_work(self, run: str) -> None:
        """Ask again and again until there is something to do."""
        while self.asked_at is None:
            since = "" if self.serial is None else f"&since={self.serial}"
            status, work = await self.call("GET", f"/v1/runs/{run}/work?wait={self.wait}{since}")
            self.polls += 1
            assert status in (200, 204), work
            if status == 200:
                self.serial = work["serial"]
                self.asked_at = time.monotonic() if work["state"] == "train" else None
            else:
                self.wait = WAIT

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line[1].transport.abort()


async def measure(
    options: argparse.Namespace, made: list[tuple[str, bytes]], port: int, process: int
) -> dict[str, Any]:
    """Bring everybody in but one, measure the rest, let the last one in, and see when everybody is asked."""
    context = None
    if options.tls:
        context = ssl.create_default_context(cafile=str(next(Path(options.folder).rglob("ca.pem"))))
    clients = [Client(client, secret, port, context) for client, secret in made]
    for i, client in enumerate(clients):
        client.wait = 1 + i % WAIT
    try:
        await _in_turns([client.begin() for client in clients])
        _, runs = await clients[0].call("GET", "/v1/runs")
        run = runs["runs"][0]
        await _in_turns([client.join(run) for client in clients[:-1]])
        waiting = [asyncio.create_task(client.wait_for_work(run["run"])) for client in clients[:-1]]
        await asyncio.sleep(3)
        polls, spent, began = sum(client.polls for client in clients), cpu_seconds(process), time.monotonic()
        await asyncio.sleep(options.seconds)
        rested = time.monotonic() - began
        share = (cpu_seconds(process) - spent) / rested
        polls = sum(client.polls for client in clients) - polls
        own, began, spent = time.process_time(), time.monotonic(), cpu_seconds(process)
        await clients[-1].join(run)
        await asyncio.wait_for(asyncio.gather(*waiting, clients[-1].wait_for_work(run["run"])), 60)
        reached = [client.asked_at - began for client in clients if client.asked_at is not None]
        return {
            "clients": len(clients),
            "tls": options.tls,
            "cpu_share": share,
            "polls_a_second": polls / rested,
            "reach_seconds": max(reached),
            "reach_median_seconds": float(np.median(reached)),
            "reach_coordinator_cpu_seconds": cpu_seconds(process) - spent,
            "reach_generator_cpu_seconds": time.process_time() - own,
            "coordinator_mb": memory(process) / 1e6,
            "load": os.getloadavg()[0],
        }
    finally:
        for client in clients:
            client.close()


async def _in_turns(calls: list[Coroutine[Any, Any, None]]) -> None:
    """Make calls, a bounded number at a time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(call: Coroutine[Any, Any, None]) -> None:
        async with free:
            await asyncio.wait_for(call, 60)

    await asyncio.gather(*(one(call) for call in calls))


def cpu_seconds(process: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> int:
    """Return the bytes that a process has in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure, or be the coordinator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    for hidden in ("--role", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "coordinator":
        coordinator(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        made = enrol(Path(folder), options.clients)
        line = [
            sys.executable,
            __file__,
            "--role",
            "coordinator",
            "--folder",
            folder,
            "--clients",
            str(options.clients),
        ]
        server = subprocess.Popen([*line, *(["--tls"] if options.tls else [])], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            port = int(said.rsplit(" from ", 1)[0].rsplit(":", 1)[1])
            found = asyncio.run(measure(options, made, port, server.pid))
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    print(json.dumps(found) if options.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
