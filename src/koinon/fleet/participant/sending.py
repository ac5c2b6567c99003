"""An update on its way: in one call if it is one chunk, else chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

from koinon.fleet.participant.connection import Connection
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.pieces import Pieces

_LANES = 2


def send(connection: Connection, at: str, claim: Claim, file: Pieces, word: Mapping[str, Any]) -> None:
    """Send what is missing of a file to the stage at a path, and commit it. Raises Refusal."""
    if len(claim.digests) == 1:
        told = {"digest": claim.digests[0], **{name: word[name] for name in ("weight", "model", "signature")}}
        connection.put(f"{at}/update?{urlencode(told)}", file.part(0, claim.size))
    else:
        _send_chunks(connection, at, claim, file)
        connection.call("POST", f"{at}/commit", word)


def _send_chunks(connection: Connection, at: str, claim: Claim, file: Pieces) -> None:
    body = {"bytes": claim.size, "chunk_bytes": claim.chunk_bytes, "digests": list(claim.digests)}
    have = set(connection.call("POST", f"{at}/update", body)["have"])
    lanes = ThreadPoolExecutor(_LANES)  # while one chunk is answered for, another is on its way
    try:
        missing = (place for place in range(len(claim.digests)) if place not in have)
        parts = ((f"{at}/update/{i}", file.part(i * claim.chunk_bytes, claim.length(i))) for i in missing)
        for sent in [lanes.submit(connection.put, *part) for part in parts]:
            sent.result()
    finally:
        lanes.shutdown(cancel_futures=True)
