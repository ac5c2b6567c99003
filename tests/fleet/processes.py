"""A coordinator and its participants as real processes on 127.0.0.1, started, killed and started again by one line each.

Nothing here waits without a deadline. What was started is killed by its own number when the fleet is closed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
_KOINON = (sys.executable, "-c", "from koinon.cli.main import main; main()")
_PAUSE_S = 0.05
START_S = 30.0


class Process:
    """One command line, of koinon where nothing else is said. Everything it says, over all its lives, is in one file."""

    def __init__(
        self, name: str, arguments: Sequence[str], folder: Path, *,
        environment: Mapping[str, str] | None = None, prefix: Sequence[str] = (), program: Sequence[str] = _KOINON,
    ) -> None:  # fmt: skip
        self.name = name
        self.folder = folder
        self._line = [*prefix, *program, *arguments]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})}
        self._file = folder / f"{name}.log"
        self._born = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it (again), with the same line."""
        assert not self.alive, f"{self.name} runs already"
        with self._file.open("ab") as log:
            self._born = log.tell()
            self._process = subprocess.Popen(
                self._line, cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with -9, if it still runs, and wait for its end."""
        if self._process is not None and self.alive:
            self.signal(signal.SIGKILL)
            self._process.wait(10)

    def wait(self, seconds: float) -> int:
        """Return its exit status, or fail with what it said."""
        assert self._process is not None, f"{self.name} was never started"
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended within {seconds} s:\n{self.said()}") from None

    def said(self, *, ever: bool = False) -> str:
        """Return what it has said since it was started last, or ever."""
        text = self._file.read_bytes() if self._file.exists() else b""
        return text[0 if ever else self._born :].decode(errors="replace")


class Fleet:
    """A coordinator of one app and its participants, in one folder."""

    def __init__(
        self, folder: Path, app: Path, *, host: str = "127.0.0.1", tls: bool = False,
        serve: Sequence[str] = (), changes: Sequence[str] = (), environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.app = app
        self.port = free_port(host)
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self.store = folder / "coordinator"
        self.changes = [word for change in changes for word in ("--set", change)]
        self.environment = dict(environment or {})
        self.participants: dict[str, Process] = {}
        plain = () if tls else ("--plain-http",)
        line = ["serve", str(app), "--listen", f"{host}:{self.port}", "--dir", str(self.store), "--links", "0", *plain]
        self.coordinator = Process("coordinator", [*line, *serve, *self.changes], folder, environment=self.environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.participants.values(), self.coordinator):
            process.kill()

    def serve(self) -> None:
        """Start the coordinator (again) and wait until it answers."""
        self.coordinator.start()
        self.until("the coordinator answers", self.answers, START_S)

    def join(
        self, name: str, *, link: str | None = None, prefix: Sequence[str] = (), options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Process:  # fmt: skip
        """Start the party ``name`` with a join link of its own."""
        line = ["join", link or self.invite(name), str(self.app), "--name", name, "--dir", str(self.folder / name)]
        line += [*options, *self.changes]
        own = {**self.environment, **(environment or {})}
        self.participants[name] = Process(name, line, self.folder, environment=own, prefix=prefix)
        return self.participants[name].start()

    def invite(self, name: str | None = None) -> str:
        """Return a new join link."""
        return str(self.admin("POST", "/v1/admin/invitations", {"count": 1, "name": name, "hours": 1})["links"][0])

    def answers(self) -> bool:
        """Whether the coordinator answers; an error if it has ended."""
        assert self.coordinator.alive, f"the coordinator has ended:\n{self.coordinator.said()}"
        try:
            return call(f"{self.url}/healthz")["status"] == "ok"
        except (OSError, ValueError):
            return False

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Make an operator's call."""
        token = json.loads((self.store / "admin.json").read_text())["token"]
        return call(f"{self.url}{path}", method, body, token)

    def run(self) -> dict[str, Any]:
        """Return the status of the one run."""
        return dict(self.admin("GET", "/v1/admin/status")["runs"][0])

    def rounds(self) -> int:
        """Return how many rounds are committed; -1 while the coordinator does not answer."""
        try:
            return int(self.run()["round"])
        except (OSError, ValueError):
            return -1

    def until(self, what: str, condition: Callable[[], T], seconds: float) -> T:
        """Wait until ``condition`` holds and return what it returned; fail with what everybody said."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.story()}")
            time.sleep(_PAUSE_S)
        return value

    def reaches(self, rounds: int, seconds: float) -> None:
        """Wait until so many rounds are committed."""
        self.until(f"{rounds} rounds", lambda: self.rounds() >= rounds, seconds)

    def finishes(self, seconds: float) -> str:
        """Wait until the run has finished and return its digest."""

        def finished() -> Any:
            try:
                run = self.run()
            except (OSError, ValueError):
                return None
            assert run["state"] not in ("failed", "cancelled"), f"{run}\n{self.story()}"
            return run if run["state"] == "finished" else None

        return str(self.until("the run has finished", finished, seconds)["digest"])

    def story(self) -> str:
        """Return the end of what every process has said."""
        return "\n".join(
            f"--- {process.name} ({'runs' if process.alive else 'ended'})\n{process.said(ever=True)[-3000:]}"
            for process in (self.coordinator, *self.participants.values())
        )


def call(url: str, method: str = "GET", body: Any = None, token: str | None = None, seconds: float = 5.0) -> Any:
    """Make one JSON call of the protocol on this machine; the certificate is not looked at."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    context = ssl._create_unverified_context() if url.startswith("https") else None
    with urllib.request.urlopen(request, timeout=seconds, context=context) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def simulated(
    app: Path, folder: Path, changes: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> str:
    """Return the digest that ``koinon run`` gives for the same app."""
    words = [word for change in changes for word in ("--set", change)]
    one = Process("simulation", ["run", str(app), "--json", *words], folder, environment=environment).start()
    try:
        assert one.wait(120) == 0, one.said()
    finally:
        one.kill()
    said = "\n" + one.said()
    return str(json.loads(said[said.rindex("\n{") :])["digest"])


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody uses now."""
    with socket.create_server((host, 0)) as door:
        return int(door.getsockname()[1])


def through(link: str, port: int) -> str:
    """Return a join link that leads through another port of 127.0.0.1."""
    parts = urlsplit(link)
    return parts._replace(netloc=f"127.0.0.1:{port}").geturl()
