"""A deployed round against the wire it runs over: real processes on the loopback, no training.

``python bench/fleet.py --clients 2 --mb 100 [--tls] [--json]`` prints ``round_seconds`` (from one committed round to
the next: model out, updates back, checked, journalled, added up, applied), ``raw_seconds`` (the same bytes over plain
sockets, or TLS 1.3, in the same run), their ``ratio``, and ``server_models``: the server's peak memory over idle in
float32 models. ``hashed_seconds`` is the same transfer with SHA-256 of each byte on either side, which is what a name by
content and a signature over content cost at least, and ``hashed_ratio`` the round against it. ``least_seconds`` is that
transfer by a program that does nothing but what a round must: write each update to disk, add it to an exact sum, make the
next model, name both by SHA-256, all of it in threads beside each other; ``least_ratio`` is that against raw: no round with
these guarantees can be nearer to raw here in Python. ``bench/compiled_round.py`` asks the same of a compiled program.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TENSORS = 100
CHUNK = 4 << 20  # bytes: what updates travel in
Take = Callable[[int, memoryview], None]
SETTLED = 2  # rounds before measuring: connections, first blobs


def parameters(megabytes: float) -> dict[str, np.ndarray]:
    """Return a model of that size in 100 tensors (10 for a small one)."""
    tensors = TENSORS if megabytes >= 10 else 10
    size = int(megabytes * 1e6 / 4 / tensors)
    return {f"layer-{i:03}": np.full(size, 0.01, np.float32) for i in range(tensors)}


def plan(megabytes: float, clients: int) -> Any:
    """Return the plan of both sides: FedAvg of a model that nobody trains."""
    import koinon as kn
    from koinon.app import App, resolve
    from koinon.core.algorithm import Synchronous

    def train(params: Any, data: Any, task: Any) -> Any:
        raise AssertionError("nobody trains here")

    app = App(
        model=kn.OwnLoop(params=parameters(megabytes), train=train),
        clients={"one": (np.zeros((4, 1)), np.zeros(4))},
        algorithm=kn.replace(kn.fedavg(kn.sgd(0.1)), schedule=Synchronous(clients=clients)),
        holdout=0.0,
    )
    return resolve(app)


def coordinator(options: argparse.Namespace) -> None:
    """Serve; write when each round was committed."""
    from koinon.core.events import RoundFinished
    from koinon.fleet.service.serving import serve
    from koinon.fleet.service.settings import ServedApp, Settings
    from koinon.round.stopping import Stop

    resolved = plan(options.mb, options.clients)

    def listen(event: Any) -> None:
        if isinstance(event, RoundFinished):
            print(f"round {time.monotonic()}", flush=True)

    app = ServedApp(
        name="bench",
        agreement={"bench": options.mb},
        training=replace(resolved.program(), stop=Stop(rounds=options.rounds + SETTLED)),
        engine="reference",
        listen=listen,
    )
    settings = Settings(
        folder=Path(options.folder), version="bench", port=0, plain_http=not options.tls, invitations=options.clients
    )
    serve(settings, [app], lambda line: print(line, flush=True))


def participant(options: argparse.Namespace) -> None:
    """Take part with an update that is ready."""
    from koinon.core.types import Payload
    from koinon.fleet.participant.connection import Reach
    from koinon.fleet.participant.floors import Floors
    from koinon.fleet.participant.participant import Participation, participate
    from koinon.fleet.wire.link import JoinLink

    resolved = plan(options.mb, options.clients)
    value = {"params": {name: 0.001 * leaf for name, leaf in parameters(options.mb).items()}, "state": {}}
    examples = np.float32(4)
    link = JoinLink.parse(options.link)

    class Ready:
        name = "ready"

        def send(self, plan: Any, job: Any, states: Any) -> Any:
            loss = examples / job.round  # it falls, so the best model is the last, as it mostly is
            return Payload(value, 4, {"examples": examples, "loss": loss}), {}

    part = Participation(
        training=resolved.program(),
        engine=Ready(),
        agreement={"bench": options.mb},
        name=options.name,
        link=link,
        floors=Floors(),
        reach=Reach(url=link.url),
    )
    participate(part, Path(options.folder), lambda line: None)


def fleet(options: argparse.Namespace) -> dict[str, float]:
    """Run a coordinator and its clients; return seconds a round and the server's peak memory over idle in models."""
    with tempfile.TemporaryDirectory() as folder:
        server = _process("coordinator", options, f"{folder}/server")
        links: list[str] = []
        assert server.stdout is not None
        while len(links) < options.clients:
            line = server.stdout.readline()
            if "koinon join '" in line:
                links.append(line.split("'")[1])
            assert line, "the coordinator ended"
        time.sleep(0.5)
        idle = _memory(server.pid, "VmRSS")
        clients = [
            _process("participant", options, f"{folder}/client-{i}", "--link", link, "--name", f"client-{i}")
            for i, link in enumerate(links)
        ]
        times: list[float] = []
        spent: list[list[float]] = []
        peak = 0
        while len(times) < options.rounds + SETTLED:
            line = server.stdout.readline()
            assert line, "the coordinator ended"
            if line.startswith("round "):
                times.append(float(line.split()[1]))
                peak = _memory(server.pid, "VmHWM")
                spent.append([_cpu_seconds(process.pid) for process in (server, *clients)])
        for client in clients:
            client.wait(60)
        server.wait(60)
    rounds = [after - before for before, after in zip(times[SETTLED - 1 :], times[SETTLED:], strict=False)]
    used = [(last - first) / options.rounds for first, last in zip(spent[SETTLED - 1], spent[-1], strict=True)]
    return {
        "round_seconds": statistics.median(rounds),
        "server_models": (peak - idle) / (options.mb * 1e6),
        "server_cpu_seconds": used[0],
        "clients_cpu_seconds": sum(used[1:]),
    }


class Settling:
    """What a round must do with updates besides moving and naming them, in a straight line: files, exact sum, next model."""

    def __init__(self, folder: Path, model: bytearray, clients: int) -> None:
        self._model, self._total = np.frombuffer(model, np.float32), np.zeros(len(model) // 4, np.int64)
        self._lock, self._clients = threading.Lock(), clients
        flags = os.O_CREAT | os.O_RDWR
        self._files = [os.open(folder / f"update-{i}", flags, 0o600) for i in range(clients)]
        self._next = os.open(folder / "model", flags, 0o600)

    def take(self, client: int, start: int, chunk: memoryview) -> None:
        """Keep a chunk and add it to the sum."""
        from koinon import exact

        os.pwrite(self._files[client], chunk, start)
        part = slice(start // 4, (start + len(chunk)) // 4)
        with self._lock:
            exact.accumulate(self._total[part], np.frombuffer(chunk, np.float32), 1)

    def settle(self) -> None:
        """Make the next model, and name it and the sum in a thread beside that."""
        from koinon import exact

        block = CHUNK // 4
        names = hashlib.sha256(), hashlib.sha256()
        with ThreadPoolExecutor(1) as naming:
            for start in range(0, self._model.size, block):
                part = slice(start, start + block)
                total, model = self._total[part], self._model[part]
                step = total / (self._clients * exact.SCALE)
                np.copyto(model, np.add(model, step, out=step), casting="unsafe")
                os.pwrite(self._next, model.data, 4 * start)
                naming.submit(self._name, names, total, model)

    def close(self) -> None:
        """Close the files."""
        for file in (*self._files, self._next):
            os.close(file)

    def _name(self, names: tuple[Any, Any], total: np.ndarray, model: np.ndarray) -> None:
        names[0].update(total.view(np.uint8).data)
        total[:] = 0
        names[1].update(model.view(np.uint8).data)


def raw(options: argparse.Namespace, *, hashed: bool = False, settled: bool = False) -> tuple[float, float]:
    """Return the seconds, and the server's CPU seconds, for the same bytes over plain sockets: out and back.

    ``hashed``: the server names its model by SHA-256 before it goes out, and every byte that comes is hashed where it
    comes, an update also where it leaves. ``settled``: it also does what :class:`Settling` says.
    """
    size = int(options.mb * 1e6)
    with tempfile.TemporaryDirectory() as folder:
        server, client = _contexts(Path(folder)) if options.tls else (None, None)
        bound = socket.create_server(("127.0.0.1", 0))
        children = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "--role",
                    "raw",
                    "--mb",
                    str(options.mb),
                    "--port",
                    str(bound.getsockname()[1]),
                ]
                + (["--folder", folder, "--tls"] if client else [])
                + (["--hashed"] if hashed else [])
                + ["--rounds", str(options.rounds)]
            )
            for _ in range(options.clients)
        ]
        connections = [_quick(bound.accept()[0]) for _ in children]
        if server is not None:
            connections = [server.wrap_socket(connection, server_side=True) for connection in connections]
        seconds = []
        model, buffers = bytearray(size), [bytearray(size) for _ in connections]
        settling = Settling(Path(folder), model, options.clients) if settled else None
        used = 0.0
        for turn in range(options.rounds + 1):
            used = time.process_time() if turn == 1 else used
            began = time.monotonic()
            if hashed and not settling:
                hashlib.sha256(model).digest()
            threads = [
                threading.Thread(
                    target=_exchange,
                    args=(connection, memoryview(model), buffer, hashed, settling and partial(settling.take, i)),
                )
                for i, (connection, buffer) in enumerate(zip(connections, buffers, strict=True))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if settling:
                settling.settle()
            seconds.append(time.monotonic() - began)
        used = (time.process_time() - used) / options.rounds
        for connection, child in zip(connections, children, strict=True):
            connection.close()
            child.wait(30)
        if settling:
            settling.close()
    return statistics.median(seconds[1:]), used


def raw_client(options: argparse.Namespace) -> None:
    """The other end of :func:`raw`."""
    size = int(options.mb * 1e6)
    connection = _quick(socket.create_connection(("127.0.0.1", options.port)))
    if options.tls:
        context = ssl.create_default_context(cafile=f"{options.folder}/ca.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
    buffer, update = bytearray(size), memoryview(np.full(size // 4, 1e-5, np.float32).view(np.uint8).data)
    for _ in range(options.rounds + 1):
        _receive(connection, buffer, options.hashed)
        for start in range(0, size, CHUNK):
            if options.hashed:
                hashlib.sha256(update[start : start + CHUNK]).digest()
            connection.sendall(update[start : start + CHUNK])


def _quick(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _exchange(connection: socket.socket, model: memoryview, buffer: bytearray, hashed: bool, take: Take | None) -> None:
    connection.sendall(model)
    _receive(connection, buffer, hashed, take)


def _receive(connection: socket.socket, buffer: bytearray, hashed: bool, take: Take | None = None) -> None:
    whole = memoryview(buffer)
    for start in range(0, len(whole), CHUNK):
        view = whole[start : start + CHUNK]
        while view:
            view = view[connection.recv_into(view) :]
        if hashed:
            hashlib.sha256(whole[start : start + CHUNK]).digest()
        if take:
            take(start, whole[start : start + CHUNK])


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    from koinon.fleet.wire.certificates import own_certificate

    own = own_certificate(folder, ["127.0.0.1"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(own.certificate, own.key)
    return server, ssl.create_default_context(cafile=str(own.authority))


def _process(role: str, options: argparse.Namespace, folder: str, *more: str) -> subprocess.Popen[str]:
    same = ["--clients", str(options.clients), "--mb", str(options.mb), "--rounds", str(options.rounds)]
    line = [
        sys.executable,
        __file__,
        "--role",
        role,
        "--folder",
        folder,
        *same,
        *(["--tls"] if options.tls else []),
        *more,
    ]
    environment = {**os.environ, "NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(process: int, field: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def main() -> None:
    """Measure, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--mb", type=float, default=100)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hashed", action="store_true", help=argparse.SUPPRESS)
    for hidden in ("--role", "--folder", "--link", "--name", "--port"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    roles = {"coordinator": coordinator, "participant": participant, "raw": raw_client}
    if options.role:
        roles[options.role](options)
        return
    before, hashed, least = raw(options), raw(options, hashed=True)[0], raw(options, hashed=True, settled=True)[0]
    found = fleet(options)
    between = [statistics.mean(pair) for pair in zip(before, raw(options), strict=True)]
    hashed = (hashed + raw(options, hashed=True)[0]) / 2
    least = (least + raw(options, hashed=True, settled=True)[0]) / 2
    found |= {"raw_seconds": between[0], "raw_cpu_seconds": between[1], "ratio": found["round_seconds"] / between[0]}
    found |= {"hashed_seconds": hashed, "hashed_ratio": found["round_seconds"] / hashed}
    found |= {"least_seconds": least, "least_ratio": least / between[0]}
    found |= {"clients": options.clients, "mb": options.mb, "tls": options.tls}
    print(json.dumps(found) if options.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
