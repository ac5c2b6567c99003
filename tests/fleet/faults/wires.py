"""Bad wires: a relay of bytes between two ports of 127.0.0.1 that is slow, breaks off, or flips bits.

It knows nothing of what it carries, so TLS passes through it.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

_PIECE = 16384
_IDLE_S = 120


class Wire:
    """Relays connections to ``upstream``; ``spoil`` sees every piece that goes up and returns what goes on.

    ``answers`` does so for what comes down. Both may sleep, change bytes, or return None to cut the connection. ``cut()``
    cuts all connections and refuses new ones until ``mend()``.
    """

    def __init__(
        self, upstream: int, spoil: Callable[[bytes], bytes | None], answers: Callable[[bytes], bytes | None] = bytes
    ) -> None:
        self.upstream = upstream
        self._spoil, self._answers = spoil, answers
        self.whole = True
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._door.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.cut()
        self._thread.join(10)

    def cut(self) -> None:
        """Cut every connection."""
        self.whole = False
        with self._lock:
            for end in self._ends:
                _hang_up(end)

    def mend(self) -> None:
        """Let new connections through again."""
        self.whole = True

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return  # closed
            try:
                if not self.whole:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self.upstream), timeout=10)
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.settimeout(_IDLE_S)
            with self._lock:
                self._ends |= {near, far}
            threading.Thread(target=self._pump, args=(near, far, self._spoil), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, self._answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, spoil: Callable[[bytes], bytes | None]) -> None:
        try:
            while piece := source.recv(_PIECE):
                spoiled = spoil(piece)
                if spoiled is None:
                    break
                sink.sendall(spoiled)
        except OSError:
            pass  # one of the two has hung up
        for end in (source, sink):
            _hang_up(end)
            end.close()
        with self._lock:
            self._ends -= {source, sink}


def slow(bytes_per_second: float) -> Callable[[bytes], bytes]:
    """Return a spoiler that lets this many bytes a second through on each connection."""

    def spoil(piece: bytes) -> bytes:
        time.sleep(len(piece) / bytes_per_second)
        return piece

    return spoil


def noisy(seed: int, probability: float) -> Callable[[bytes], bytes | None]:
    """Return a spoiler that cuts, delays or corrupts a piece with this probability."""
    draw, lock = random.Random(seed), threading.Lock()

    def spoil(piece: bytes) -> bytes | None:
        with lock:
            bad, kind, at = draw.random() < probability, draw.randrange(3), draw.randrange(len(piece))
        if not bad:
            return piece
        if kind == 0:
            return None
        if kind == 1:
            time.sleep(0.2)
            return piece
        return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]

    return spoil


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # already down
