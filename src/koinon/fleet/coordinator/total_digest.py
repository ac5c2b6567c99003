"""The digest of a round's exact total, computed in a thread of its own while the total is used."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from koinon.fleet.coordinator.deferred import BLOCK
from koinon.fleet.wire.signatures import digest
from koinon.tree import Array

_AHEAD = 32  # blocks that may wait to be hashed


class TotalDigest:
    """SHA-256 over the lines ``name digest`` of the total's leaves in name order; a leaf's is over its int64 bytes."""

    def __init__(self) -> None:
        self._leaves: dict[str, hashlib._Hash] = {}
        self._places: dict[str, int] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._room = threading.Semaphore(_AHEAD)

    def __call__(self, name: str, start: int, block: Array) -> None:
        """Take the next elements of a leaf; those that were seen before are not hashed again."""
        if start != self._places.get(name, 0) or not len(block):
            return
        self._places[name] = start + len(block)
        if self._thread is None and len(block) < BLOCK:
            self._update(name, block)  # a small model is hashed sooner than a thread is woken
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1)
        self._room.acquire()
        self._thread.submit(self._update_later, name, block)

    def result(self) -> str | None:
        """Return the digest of what was seen; None if that is nothing."""
        if self._thread is not None:
            self._thread.shutdown()
        if not self._leaves:
            return None
        lines = [f"{name} {self._leaves[name].hexdigest()}\n" for name in sorted(self._leaves)]
        return digest("".join(lines).encode())

    def _update(self, name: str, block: Array) -> None:
        little = np.ascontiguousarray(block, "<i8")
        self._leaves.setdefault(name, hashlib.sha256()).update(little.view(np.uint8).data)

    def _update_later(self, name: str, block: Array) -> None:
        try:
            self._update(name, block)
        finally:
            self._room.release()
