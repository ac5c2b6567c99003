"""Trees as files named by their content: written beside, synced, renamed; never half there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import safetensors.numpy

from koinon import tree
from koinon.errors import StoreError
from koinon.tree import Array, Tree

_STRUCTURE = "structure"


class Blobs:
    """A folder of safetensors files, each named by the SHA-256 of its bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, value: Tree) -> str:
        """Write a tree durably and return its name; a tree that is there already is not written again."""
        data = pack(value)
        name = hashlib.sha256(data).hexdigest()
        target = self._path(name)
        if target.exists():
            return name
        partial = target.with_suffix(f".{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
            _sync_folder(self._folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreError(
                f"Could not write {len(data):,} bytes into {self._folder}: {error.strerror}. Make room or choose another "
                "folder, then run the same line again: every committed round is still there."
            ) from error
        return name

    def read(self, name: str) -> Tree:
        """Return the tree of a name, or say that the file is missing or damaged."""
        path = self._path(name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"{path} is needed and cannot be read: {error.strerror}. Restore it from a copy."
            ) from error
        if hashlib.sha256(data).hexdigest() != name:
            raise StoreError(f"{path} is damaged: its content does not match its name. Restore it from a copy.")
        return unpack(data)

    def keep(self, names: Iterable[str]) -> None:
        """Delete every other file, and what an interrupted write left."""
        kept = {self._path(name) for name in names}
        for path in self._folder.iterdir():
            if path not in kept:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


def pack(value: Tree) -> bytes:
    """Return a tree as safetensors bytes; empty subtrees survive in the header."""
    arrays: dict[str, Array] = {name: _contiguous(leaf) for name, leaf in tree.items(value)}
    data: bytes = safetensors.numpy.save(arrays, {_STRUCTURE: json.dumps(tree.structure(value), sort_keys=True)})
    return data


def unpack(data: bytes) -> Tree:
    """Return the tree of :func:`pack`."""
    length = int.from_bytes(data[:8], "little")
    structure = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_STRUCTURE])
    arrays = safetensors.numpy.load(data)
    return tree.fill(structure, (arrays[name] for name in tree.names(structure)))


def _contiguous(leaf: Array) -> Array:
    return np.ascontiguousarray(leaf).reshape(np.shape(leaf))


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
