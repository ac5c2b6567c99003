"""A blob as an answer: by its digest, from any byte on, or behind what is told of it; read as the connection takes it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from koinon.fleet.coordinator.figures import Figures
from koinon.fleet.wire.carried import CARRIED, head
from koinon.fleet.wire.refusal import Refusal

_BLOCK = 1 << 18  # stays in a processor's cache between the disk's pages and the socket
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


def blob_answer(request: Request, path: Path, name: str, figures: Figures) -> Response:
    """Return the file's bytes, or the part that Range asks for; 304 if the caller has it already."""
    etag = f'"{name}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    size = path.stat().st_size
    start, stop, status = 0, size, 200
    if (wanted := request.headers.get("range")) is not None:
        match = _RANGE.fullmatch(wanted)
        start = int(match[1]) if match else size
        stop = min(size, int(match[2]) + 1) if match and match[2] else size
        if start >= stop:
            raise Refusal(
                416, "range", f"The blob has {size:,} bytes, from 0; ask for bytes=START- or bytes=START-LAST."
            )
        status = 206
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Length": str(stop - start),
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    figures.bytes_sent += stop - start
    return _FileAnswer(path, start, stop, status, headers)


def carried_answer(told: Mapping[str, Any], path: Path, size: int, figures: Figures) -> Response:
    """Return JSON with a file of ``size`` bytes behind it. Raises FileNotFoundError."""
    first = head(told)
    answer = _FileAnswer(path, 0, size, 200, {"Content-Length": str(len(first) + size)}, first)
    figures.bytes_sent += size
    return answer


class _FileAnswer(Response):
    def __init__(
        self, path: Path, start: int, stop: int, status: int, headers: dict[str, str], first: bytes = b""
    ) -> None:
        super().__init__(None, status, headers, CARRIED)
        self._file = os.open(path, os.O_RDONLY)  # now: a blob that is deleted later is still read to its end
        self._start, self._stop, self._first = start, stop, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                for place in range(self._start, self._stop, _BLOCK):
                    data = self._first + os.pread(self._file, min(_BLOCK, self._stop - place), place)
                    self._first = b""
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body"})
        finally:
            os.close(self._file)
