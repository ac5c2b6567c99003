"""Trees as files named by their content: written beside, synced, renamed; never half there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from koinon import tree
from koinon.errors import FormatError, StoreError
from koinon.store import tensors
from koinon.tree import Tree

_STRUCTURE = "structure"
_LARGE = 8 << 20
_GONE = ".gone"


class Blobs:
    """A folder of safetensors files, each named by the SHA-256 of its bytes."""

    def __init__(self, folder: Path, *, synced: bool = True) -> None:
        """``synced=False`` leaves it to the system when the bytes reach the disk: a killed process loses none."""
        self._folder = folder
        self._synced = synced
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, value: Tree) -> str:
        """Write a tree durably and return its name; a tree that is there already is not written again."""
        partial = self._folder / f"{os.getpid()}.part"
        state = hashlib.sha256()
        try:
            with partial.open("wb") as file, ThreadPoolExecutor(1) as beside:
                large = tree.size_bytes(value) > _LARGE  # then it is hashed and written at the same time
                for piece in parts(value):
                    if large:
                        beside.submit(state.update, piece)
                    else:
                        state.update(piece)
                    file.write(piece)
                file.flush()
                if self._synced:
                    os.fsync(file.fileno())
            partial.replace(self.path(state.hexdigest()))
            if self._synced:
                sync_folder(self._folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreError(
                f"Could not write {tree.size_bytes(value):,} bytes into {self._folder}: {error.strerror}. Make room or "
                "choose another folder, then run the same line again: every committed round is still there."
            ) from error
        return state.hexdigest()

    def read(self, name: str) -> Tree:
        """Return the tree of a name, or say that the file is missing or damaged."""
        path = self.path(name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"{path} is needed and cannot be read: {error.strerror}. Restore it from a copy."
            ) from error
        if hashlib.sha256(data).hexdigest() != name:
            raise StoreError(f"{path} is damaged: its content does not match its name. Restore it from a copy.")
        return unpack(data)

    def whole(self, name: str) -> bool:
        """Return whether the file of a name is there and undamaged."""
        try:
            with self.path(name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == name
        except OSError:
            return False

    def sync(self, name: str) -> None:
        """Force a file that was written without ``synced`` to the disk."""
        with self.path(name).open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(self._folder)

    def keep(self, names: Iterable[str]) -> None:
        """Delete every other file, and what an interrupted write left."""
        self.set_aside(names)
        self.clear()

    def set_aside(self, names: Iterable[str]) -> None:
        """Rename every other file, so that :meth:`clear` can delete it at leisure: large files take their time."""
        kept = {self.path(name) for name in names}
        for path in self._folder.iterdir():
            if path not in kept and path.suffix != _GONE:
                with suppress(FileNotFoundError):
                    path.replace(path.with_suffix(_GONE))

    def clear(self) -> None:
        """Delete what was set aside."""
        for path in self._folder.glob(f"*{_GONE}"):
            path.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Return where the blob of a name is, or would be."""
        return self._folder / f"{name}.safetensors"


def parts(value: Tree) -> Iterator[bytes | memoryview]:
    """Yield a tree's file piece by piece, from its own memory; empty subtrees survive in the header."""
    structure = json.dumps(tree.structure(value), sort_keys=True)
    return tensors.pieces(dict(tree.items(value)), {_STRUCTURE: structure})


def pack(value: Tree) -> bytes:
    """Return a tree as safetensors bytes."""
    return b"".join(parts(value))


def unpack(data: bytes | bytearray | memoryview) -> Tree:
    """Return the tree of :func:`pack` over the memory of ``data``. Raises FormatError for anything else."""
    found = tensors.layout(memoryview(data), len(data))
    arrays = found.views(data)
    try:
        structure = json.loads(found.metadata[_STRUCTURE])
        names = tree.names(structure)
        if sorted(names) != sorted(arrays):
            raise ValueError("its names are not those of its tensors")
        return tree.fill(structure, (arrays[name] for name in names))
    except (KeyError, ValueError, RecursionError, AttributeError, TypeError) as error:
        raise FormatError(f"The file's tree cannot be rebuilt: {error}.") from error


def sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
