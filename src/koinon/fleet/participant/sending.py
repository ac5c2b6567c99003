"""The calls of a round: work with its model, and an update on its way, whose answer is the next work where that may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

from koinon.fleet.participant.connection import Connection
from koinon.fleet.participant.making import Maker
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.pieces import Pieces

_LANES = 2
_WAIT_SECONDS = 30
_MOST_CARRIED = 64 << 20  # bytes, whatever a coordinator says: a larger model is fetched in pieces that can be resumed


class Exchange:
    """What a participant and the coordinator of its run say to each other, round by round.

    A coordinator that ``carries`` sends models of so many bytes with the work, and answers an update of one chunk with
    the next work.
    """

    def __init__(self, connection: Connection, run: str, maker: Maker, carries: int) -> None:
        self._connection, self._maker, self._carries = connection, maker, min(carries, _MOST_CARRIED)
        self._path, self._serial = f"/v1/runs/{run}/work", 0
        self._next: dict[str, Any] | None = None  # what came with the answer to an update
        self.waits = False  # whether to be answered with that, if the coordinator can

    def work(self) -> dict[str, Any] | None:
        """Return what there is to do as soon as that is new; None if it takes long."""
        work, self._next = self._next, None
        if work is None:
            work = self._asked("GET", f"{self._path}?{urlencode(self._patience())}")
        if work is not None:
            self._serial = work["serial"]
        return work

    def begin_anew(self) -> None:
        """Ask to be told everything again."""
        self._next, self._serial = None, 0

    def send(self, at: str, claim: Claim, file: Pieces, word: Mapping[str, Any]) -> None:
        """Send what is missing of a file to the stage at a path, and commit it. Raises Refusal."""
        if len(claim.digests) > 1:
            _send_chunks(self._connection, at, claim, file)
            self._connection.call("POST", f"{at}/commit", word)
            return
        told = {"digest": claim.digests[0], **{name: word[name] for name in ("weight", "model", "signature")}}
        told |= self._patience() if self.waits and self._carries else {}
        answer = self._asked("PUT", f"{at}/update?{urlencode(told)}", file.part(0, claim.size))
        self._next = (answer or {}).get("work")

    def _patience(self) -> dict[str, Any]:
        known = {"since": self._serial, "wait": _WAIT_SECONDS}
        return {**known, "carry": self._carries, "have": self._maker.model} if self._carries else known

    def _asked(self, method: str, path: str, parts: Sequence[memoryview] | None = None) -> Any:
        """Return a JSON answer; a model that comes with it is not fetched any more."""
        answer, model = self._connection.carried(method, path, parts, self._carries)
        if model is not None:
            self._maker.take(*model)
        return answer


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
