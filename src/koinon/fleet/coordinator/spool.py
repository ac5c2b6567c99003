"""Uploads on disk: chunks at fixed places, each checked by its digest, readable leaf by leaf once complete."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from koinon.errors import FormatError, StoreError
from koinon.fleet.wire.claim import Claim
from koinon.store import tensors
from koinon.tree import Array

_BLOCK = 1 << 20
_FREE_FILES = 16
_HEAD = 16 << 10  # bytes of a header that is parsed once, however often it is asked for


@dataclass(frozen=True)
class Upload:
    """One client's file and which of its chunks are there."""

    claim: Claim
    path: Path
    have: set[int] = field(default_factory=set)
    writers: dict[int, Chunk] = field(default_factory=dict)  # by chunk: whoever began last, and nobody else, may write

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return len(self.have) == len(self.claim.digests)

    def open_chunk(self, chunk: int) -> Chunk:
        """Return where the bytes of a chunk go. Close it by :meth:`Chunk.finish` or :meth:`Chunk.drop`."""
        self.writers[chunk] = Chunk(self, chunk)
        return self.writers[chunk]

    def sync(self) -> None:
        """Have the file on the disk when this returns, under its name. Raises StoreError."""
        try:
            for path in (self.path, self.path.parent):
                file = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)
        except OSError as error:
            raise StoreError(f"An upload cannot be kept in {self.path.parent}: {error.strerror}.") from error

    def layout(self, header_bytes: int = tensors.LIMITS.header_bytes) -> tensors.Layout:
        """Return where the file's tensors are, as a header of at most so many bytes says. Raises FormatError."""
        limits = replace(tensors.LIMITS, header_bytes=header_bytes)
        file = os.open(self.path, os.O_RDONLY)
        try:
            head = os.pread(file, _HEAD, 0)
            length = tensors.LENGTH_BYTES + tensors.header_length(head, limits)
            if length <= _HEAD:
                return _small_layout(head[:length], self.claim.size)
            return tensors.layout(os.pread(file, length, 0), self.claim.size, limits)
        finally:
            os.close(file)

    def read(self, wanted: Iterable[tensors.Tensor]) -> Iterator[Array]:
        """Yield tensors, each in memory of its own."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            for tensor in wanted:
                yield self._read(file, tensor)
        finally:
            os.close(file)

    def _read(self, file: int, tensor: tensors.Tensor) -> Array:
        out = np.empty(tensor.shape, tensor.dtype)
        view, place = memoryview(out.reshape(-1).view(np.uint8).data), tensor.start
        while place < tensor.stop:
            count = os.preadv(file, [view[place - tensor.start :]], place)
            if not count:
                raise StoreError(f"{self.path} was cut short. The client will be asked to send it again.")
            place += count
        return out


@lru_cache(maxsize=16)
def _small_layout(head: bytes, size: int) -> tensors.Layout:
    return tensors.layout(head, size)


class Chunk:
    """Takes a chunk's bytes as they come and keeps them only if their digest is the announced one."""

    def __init__(self, upload: Upload, number: int) -> None:
        self._upload, self._number = upload, number
        self._state = hashlib.sha256()
        self._left = upload.claim.length(number)
        self._place = number * upload.claim.chunk_bytes
        self._file = os.open(upload.path, os.O_WRONLY)

    @property
    def left(self) -> int:
        """How many bytes are still to come."""
        return self._left

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Raises StoreError if the disk does not."""
        if len(data) > self._left:
            raise FormatError("A chunk brought more bytes than it has.")
        self._state.update(data)
        if self._number not in self._upload.have and self._is_last:  # what was checked is never written again
            self._keep(data)
        self._place += len(data)
        self._left -= len(data)

    def _keep(self, data: bytes | memoryview) -> None:
        try:
            written = os.pwrite(self._file, data, self._place)
        except OSError as error:
            raise StoreError(f"An upload cannot be kept in {self._upload.path.parent}: {error.strerror}.") from error
        if written != len(data):
            raise StoreError(f"An upload cannot be kept in {self._upload.path.parent}: the disk is full.")

    @property
    def _is_last(self) -> bool:
        return self._upload.writers.get(self._number) is self

    def finish(self) -> bool:
        """Return whether the chunk is whole and right, and count it as there if so; False if another overtook it."""
        right = not self._left and self._state.hexdigest() == self._upload.claim.digests[self._number]
        right = right and (self._is_last or self._number in self._upload.have)
        self.drop()
        if right:
            self._upload.have.add(self._number)
        return right

    def drop(self) -> None:
        """Forget what came. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._is_last:
            del self._upload.writers[self._number]


class Spool:
    """The folder of uploads, by run, round, purpose and client.

    A few files that are no longer needed are kept for later uploads: to write over a file is much faster than to grow
    a new one. What is left in one is never read, because an upload counts only when each of its chunks was checked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._free = folder, folder / "free"
        self._free.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, run: str, stage: str, client: str, claim: Claim) -> Upload:
        """Return a client's upload of a stage with what is already there of it: each chunk is checked anew.

        Another claim has another file, so that what still comes for the old one cannot reach it.
        """
        folder, name = self._folder / run / stage, f"{client}.{claim.size}.{claim.chunk_bytes}.{claim.root}"
        path = folder / name
        try:
            others = _names(folder)
            for other in others:
                if other.startswith(f"{client}.") and other != name:
                    os.unlink(folder / other)
            if name not in others:
                self._take_over(path)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                there = name in others and os.fstat(file).st_size
                os.ftruncate(file, claim.size)
                have = {i for i in range(len(claim.digests)) if there and self._matches(file, claim, i)}
            finally:
                os.close(file)
        except OSError as error:
            raise StoreError(f"No upload can be kept in {path.parent}: {error.strerror}. Make room.") from error
        return Upload(claim, path, have)

    @staticmethod
    def _matches(file: int, claim: Claim, chunk: int) -> bool:
        place, left = chunk * claim.chunk_bytes, claim.length(chunk)
        state = hashlib.sha256()
        while left and (data := os.pread(file, min(left, _BLOCK), place)):
            state.update(data)
            place, left = place + len(data), left - len(data)
        return state.hexdigest() == claim.digests[chunk]

    def forget(self, run: str, stage: str) -> None:
        """Drop all uploads of a stage."""
        folder = self._folder / run / stage
        names = os.listdir(folder) if folder.is_dir() else []
        for name in names[: max(0, _FREE_FILES - len(os.listdir(self._free)))]:
            os.replace(folder / name, self._free / secrets.token_hex(8))
        try:
            os.rmdir(folder)
        except OSError:  # it is not there, or there is more in it
            shutil.rmtree(folder, ignore_errors=True)

    def _take_over(self, path: Path) -> None:
        """Put a file that is no longer needed in the place of a new one, if there is any."""
        for free in os.listdir(self._free):
            with suppress(FileNotFoundError):  # another upload has just taken it
                os.replace(self._free / free, path)
                return

    def stages(self, run: str) -> list[str]:
        """Return the stages that have uploads."""
        folder = self._folder / run
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _names(folder: Path) -> list[str]:
    """Return what lies in a folder, which is made if there is none."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return []
