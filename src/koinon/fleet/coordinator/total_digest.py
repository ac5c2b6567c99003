"""The digest of a round's exact total, computed in a thread of its own while the total is used."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from koinon.fleet.wire.signatures import digest
from koinon.tree import Array

_BATCH = 1 << 20  # bytes that are handed over at once: fewer are hashed sooner than a thread is woken
_AHEAD = 16  # batches that may wait to be hashed


class TotalDigest:
    """SHA-256 over the lines ``name digest`` of the total's leaves in name order; a leaf's is over its int64 bytes.

    ``beside`` is one thread, for which nobody else has work.
    """

    def __init__(self, beside: ThreadPoolExecutor) -> None:
        self._leaves: dict[str, hashlib._Hash] = {}
        self._places: dict[str, int] = {}
        self._batch: list[tuple[str, Array]] = []
        self._bytes = 0  # in the batch
        self._beside = beside
        self._last: Future[None]
        self._room = threading.Semaphore(_AHEAD)

    def __call__(self, name: str, start: int, block: Array) -> None:
        """Take the next elements of a leaf; those that were seen before are not hashed again."""
        if start != self._places.get(name, 0) or not len(block):
            return
        self._places[name] = start + len(block)
        self._batch.append((name, block))
        self._bytes += block.nbytes
        if self._bytes >= _BATCH:
            self.hand_over()

    def hand_over(self) -> None:
        """Have hashed what has been seen, while the caller does something else."""
        batch, self._batch, self._bytes = self._batch, [], 0
        self._room.acquire()
        self._last = self._beside.submit(self._hash, batch)

    def result(self) -> str | None:
        """Return the digest of what was seen; None if that is nothing."""
        self.hand_over()
        self._last.result()
        if not self._leaves:
            return None
        lines = [f"{name} {self._leaves[name].hexdigest()}\n" for name in sorted(self._leaves)]
        return digest("".join(lines).encode())

    def _hash(self, batch: list[tuple[str, Array]]) -> None:
        try:
            for name, block in batch:
                little = np.ascontiguousarray(block, "<i8")
                self._leaves.setdefault(name, hashlib.sha256()).update(little.view(np.uint8).data)
        finally:
            self._room.release()
