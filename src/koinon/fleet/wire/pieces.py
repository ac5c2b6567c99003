"""A file that is still in pieces of memory: hashed and sent chunk by chunk, and never put together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from koinon.fleet.wire.claim import Claim


class Pieces:
    """The bytes of several pieces, one after the other."""

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        self._starts = [0]
        for view in self._views:
            self._starts.append(self._starts[-1] + len(view))

    def __len__(self) -> int:
        return self._starts[-1]

    def part(self, start: int, length: int) -> list[memoryview]:
        """Return the bytes from ``start`` on, in as few pieces as they lie in."""
        stop = start + length
        return [
            view[max(0, start - begin) : stop - begin]
            for view, begin in zip(self._views, self._starts, strict=False)
            if begin < stop and begin + len(view) > start
        ]

    def claim(self, chunk_bytes: int) -> Claim:
        """Return what an upload of them announces."""
        digests = []
        for start in range(0, len(self), chunk_bytes):
            state = hashlib.sha256()
            for view in self.part(start, min(chunk_bytes, len(self) - start)):
                state.update(view)
            digests.append(state.hexdigest())
        return Claim(len(self), chunk_bytes, tuple(digests))
