"""Values between processes of one user on one machine: a pickled head over a socket, arrays in shared memory.

Every parcel has an anonymous memory file of its own, so nothing is left behind by a kill, a received array
stays valid as long as somebody holds it, and one parcel can go to many workers without a copy.
Both ends belong to the same user and program: this is inside the trust boundary, where pickle is allowed.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

import cloudpickle

_HEADER = struct.Struct("<QQI")  # bytes of the head, bytes in shared memory, number of arrays
_ALIGNMENT = 64  # what XLA asks of an array it uses without a copy
_INLINE = 1 << 14  # smaller parcels travel through the socket alone


class Parcel:
    """One packed value. Send it any number of times, then close it."""

    def __init__(self, value: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self._head = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        if sum(view.nbytes for view in views) < _INLINE:
            self._head, views = cloudpickle.dumps(value, protocol=5), []
        self._spans, size = [], 0
        for view in views:
            self._spans.append((size, view.nbytes))
            size += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
        self._size = size
        self._file = _memory_file(views, self._spans, size) if size else -1

    def send(self, to: socket.socket) -> None:
        """Send the value; returns when the receiver's socket has taken it."""
        spans = b"".join(struct.pack("<QQ", *span) for span in self._spans)
        to.sendall(_HEADER.pack(len(self._head), self._size, len(self._spans)) + spans + self._head)
        if self._file >= 0:
            socket.send_fds(to, [b"\0"], [self._file])

    def close(self) -> None:
        """Give this end's hold on the memory back. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def send(value: Any, to: socket.socket) -> None:
    """Pack and send one value."""
    parcel = Parcel(value)
    try:
        parcel.send(to)
    finally:
        parcel.close()


def receive(source: socket.socket) -> Any:
    """Return the next value; its arrays are read-only views of shared memory. EOFError when the other end is gone."""
    head_bytes, size, count = _HEADER.unpack(_exactly(source, _HEADER.size))
    packed = _exactly(source, 16 * count)
    spans = [struct.unpack_from("<QQ", packed, 16 * i) for i in range(count)]
    head = _exactly(source, head_bytes)
    if not size:
        return pickle.loads(head)  # the same user's own process
    _, files, _, _ = socket.recv_fds(source, 1, 1)
    if not files:
        raise EOFError("the other end closed between a head and its arrays")
    try:
        memory = memoryview(mmap.mmap(files[0], size, prot=mmap.PROT_READ))
    finally:
        os.close(files[0])
    return pickle.loads(head, buffers=[memory[start : start + length] for start, length in spans])


def _exactly(source: socket.socket, count: int) -> bytes:
    out = bytearray(count)
    view, got = memoryview(out), 0
    while got < count:
        read = source.recv_into(view[got:])
        if not read:
            raise EOFError("the other end has closed")
        got += read
    return bytes(out)


def _memory_file(views: Sequence[memoryview], spans: Sequence[tuple[int, int]], size: int) -> int:
    """Return a descriptor of a nameless file in memory (in the temporary folder where the system has none)."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("koinon", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    for view, (start, _) in zip(views, spans, strict=True):
        done = 0
        while done < view.nbytes:
            done += os.pwrite(descriptor, view[done:], start + done)
    return descriptor
