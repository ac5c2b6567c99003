"""Requests' bodies: JSON of a known shape, and bytes that go where they belong as they come. Bounded in size and time."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from koinon.errors import FormatError
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.texts import is_writable

CONTROL_BYTES = 64 << 10
CLAIM_BYTES = 4 << 20
SLOWEST_BYTES_PER_SECOND = 32 << 10
_GRACE_SECONDS = 5.0
_MOST_BEHIND = 1 << 20  # bytes of one body that may wait for the disk
_CONTROL_SECONDS = 10.0
Shape = TypeVar("Shape")

_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str) and is_writable(value),
    "int": lambda value: type(value) is int and 0 <= value < 2**53,
    "float": lambda value: type(value) in (int, float) and 0 <= value < 2**53,
    "str | None": lambda value: value is None or isinstance(value, str),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "Mapping[str, str | None]": lambda value: isinstance(value, dict),
}


class DirectBody(Protocol):
    """What a server offers that hands over a body's bytes without queueing them (see :mod:`koinon.fleet.service.uvicorn_protocol`)."""

    async def into(self, write: Callable[[bytes], None], wait: float) -> bool:
        """Hand bytes to ``write`` for at most ``wait`` seconds; return whether the body is over."""

    def pause(self) -> None:
        """Read no more for now."""

    def go_on(self) -> None:
        """Read on."""


async def read_record(request: Request, kind: type[Shape], most: int = CONTROL_BYTES) -> Shape:
    """Return a JSON body as a frozen dataclass of exactly these fields. Raises Refusal."""
    _refuse_encodings(request)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise Refusal(413, "too_large", f"This call takes at most {most:,} bytes; {int(declared):,} were announced.")
    data = bytearray()
    try:
        async with asyncio.timeout(_CONTROL_SECONDS):
            async for piece in request.stream():
                data += piece
                if len(data) > most:
                    raise Refusal(413, "too_large", f"This call takes at most {most:,} bytes.")
    except TimeoutError as error:
        raise Refusal(408, "slow", f"The body did not arrive within {_CONTROL_SECONDS:g} s.") from error
    try:
        return record(kind, json.loads(data.decode() or "{}"))
    except (ValueError, RecursionError) as error:
        raise Refusal(422, "malformed", "The body must be a JSON object.") from error


def record(kind: type[Shape], value: Any) -> Shape:
    """Return a JSON object as a frozen dataclass of exactly its fields. Raises Refusal that names the field."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise Refusal(422, "malformed", f"This call takes the fields {', '.join(fields) or 'none'}, and no others.")
    for name, wanted in fields.items():
        if not _KINDS[wanted](value[name]):
            raise Refusal(422, "malformed", f"The field {name} must be: {wanted}.")
    try:
        return kind(**{name: tuple(own) if isinstance(own, list) else own for name, own in value.items()})
    except FormatError as error:
        raise Refusal(422, "malformed", str(error)) from error


async def read_chunk(request: Request, length: int, write: Callable[[bytes], None]) -> None:
    """Hand a body of exactly ``length`` bytes to ``write`` as it comes. Raises Refusal for another length or pace."""
    _refuse_encodings(request)
    declared = request.headers.get("content-length")
    if declared is None:
        raise Refusal(411, "length", "A chunk is sent with Content-Length.")
    if declared != str(length):
        raise Refusal(422, "malformed", f"This chunk has {length:,} bytes; {declared[:20]} were announced.")
    direct: DirectBody | None = request.scope.get("extensions", {}).get("koinon.direct_body")
    if length <= _MOST_BEHIND:  # written sooner than a thread is woken
        await _read(request, direct, write)
        return
    behind = _Behind(write, direct)
    try:
        await _read(request, direct, behind)
    finally:
        await behind.done()


async def _read(request: Request, direct: DirectBody | None, write: Callable[[bytes], None]) -> None:
    pace = _Pace()
    counted = pace.counted(write)
    if direct is not None:
        while not await direct.into(counted, 1.0):
            pace.check()
        return
    async for piece in request.stream():
        counted(piece)
        pace.check()


class _Behind:
    """Writes in a thread of its own what the loop brings, in order: hashing and the disk do not hold the loop up."""

    def __init__(self, write: Callable[[bytes], None], direct: DirectBody | None) -> None:
        self._write, self._direct = write, direct
        self._pending: list[bytes] = []
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def __call__(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pending.append(data)
        self._bytes += len(data)
        if self._task is None:
            self._task = asyncio.create_task(self._catch_up())
        if self._bytes > _MOST_BEHIND and self._direct is not None:
            self._direct.pause()

    async def done(self) -> None:
        """Return when everything is written. Raises what writing raised."""
        if self._task is not None:
            await self._task

    async def _catch_up(self) -> None:
        while self._pending:
            pieces, self._pending, self._bytes = self._pending, [], 0
            await asyncio.to_thread(self._run, pieces)
            if self._direct is not None:
                self._direct.go_on()
        self._task = None

    def _run(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._write(piece)


class _Pace:
    """Whether a body comes fast enough."""

    def __init__(self) -> None:
        self._began, self._bytes = time.monotonic(), 0

    def counted(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Return ``write`` that counts."""

        def counting(data: bytes) -> None:
            self._bytes += len(data)
            write(data)

        return counting

    def check(self) -> None:
        """Raise Refusal if it is too slow."""
        seconds = time.monotonic() - self._began
        if seconds > _GRACE_SECONDS and self._bytes < SLOWEST_BYTES_PER_SECOND * seconds:
            rate = self._bytes / seconds / 1024
            raise Refusal(
                408, "slow", f"The chunk came at {rate:.1f} KiB/s, and the slowest allowed is 32. Send it again."
            )


def _refuse_encodings(request: Request) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "encoding", "Bodies are sent as they are, without Content-Encoding.")
