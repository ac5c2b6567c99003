"""What clients call: enrol, begin a session, join a run, wait for work, fetch the model, send an update."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from koinon.core.types import Purpose
from koinon.fleet.coordinator.access import SESSION_SECONDS
from koinon.fleet.coordinator.mailbox import EVERYBODY, SERVER, Address, Letter
from koinon.fleet.coordinator.members import Member
from koinon.fleet.coordinator.spool import Chunk
from koinon.fleet.service.blob_answer import blob_answer, carried_answer
from koinon.fleet.service.bodies import CLAIM_BYTES, read_chunk, read_record
from koinon.fleet.service.house import House, ServedRun
from koinon.fleet.service.queries import Patience, in_path, in_query, whole_number
from koinon.fleet.service.status import state_of
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import Kind, PublicKey, decoded, encoded
from koinon.fleet.wire.texts import is_digest

PROTOCOL = (1,)
_REASON_CHARACTERS = 2000
_SMALL = 1 << 20  # bytes of an update that is looked at where it came


@dataclass(frozen=True)
class Enrolment:
    """Who a party is. The signature is over the enrolment's text."""

    token: str
    name: str
    kind: str
    key: str
    signature: str


@dataclass(frozen=True)
class Challenged:
    """Who wants a challenge."""

    client: str


@dataclass(frozen=True)
class Opened:
    """A signed challenge."""

    client: str
    challenge: str
    signature: str


@dataclass(frozen=True)
class Joined:
    """A client's app and how much data it has, as far as it tells."""

    app: str
    train_examples: int
    held_out_examples: int
    codecs: tuple[str, ...]
    versions: Mapping[str, str | None]


@dataclass(frozen=True)
class Announced:
    """An update's size and the digests of its chunks."""

    bytes: int
    chunk_bytes: int
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Word:
    """What a client signs of its update."""

    root: str
    weight: int
    model: str
    signature: str


@dataclass(frozen=True)
class Failure:
    """Why a client cannot do it."""

    reason: str


def routes(house: House) -> list[Route]:
    """Return the clients' calls."""
    calls = _Calls(house)
    run, stage = "/v1/runs/{run}", "/v1/runs/{run}/rounds/{round}/{purpose}"
    post = "/v1/runs/{run}/rounds/{round}/stages/{stage}/messages"
    return [
        Route("/v1/enrol", calls.enrol, methods=["POST"]),
        Route("/v1/challenge", calls.challenge, methods=["POST"]),
        Route("/v1/session", calls.session, methods=["POST"]),
        Route("/v1/runs", calls.list_runs),
        Route(run, calls.describe),
        Route(f"{run}/join", calls.join, methods=["POST"]),
        Route(f"{run}/work", calls.work),
        Route(f"{run}/receipts", calls.receipts),
        Route(f"{run}/clients", calls.list_clients),
        Route("/v1/blobs/{sha256}", calls.blob),
        Route(post, calls.leave_message, methods=["POST"]),
        Route(post, calls.read_messages, methods=["GET"]),
        Route(f"{stage}/update", calls.announce, methods=["POST"]),
        Route(f"{stage}/update", calls.send_whole, methods=["PUT"]),
        Route(f"{stage}/update/{{chunk}}", calls.chunk, methods=["PUT"]),
        Route(f"{stage}/commit", calls.commit, methods=["POST"]),
        Route(f"{stage}/failure", calls.failure, methods=["POST"]),
    ]


class _Calls:
    def __init__(self, house: House) -> None:
        self._house = house

    async def enrol(self, request: Request) -> Response:
        self._house.stranger(request)
        body = await read_record(request, Enrolment)
        if body.kind not in [kind.value for kind in Kind]:
            raise Refusal(422, "malformed", "A key is of kind ed25519 or p256.")
        key, signature = PublicKey(Kind(body.kind), decoded(body.key)), decoded(body.signature)
        client = await asyncio.to_thread(self._house.access.enrol, body.token, body.name, key, signature)
        coordinator = encoded(self._house.key.public.raw)
        return JSONResponse({"client": client.client, "coordinator": coordinator, "protocol": PROTOCOL})

    async def challenge(self, request: Request) -> Response:
        self._house.stranger(request)
        body = await read_record(request, Challenged)
        return JSONResponse({"challenge": self._house.access.challenge(body.client)})

    async def session(self, request: Request) -> Response:
        self._house.stranger(request)
        body = await read_record(request, Opened)
        token = self._house.access.session(body.client, body.challenge, decoded(body.signature))
        return JSONResponse({"token": token, "seconds": SESSION_SECONDS})

    async def list_runs(self, request: Request) -> Response:
        self._house.caller(request)
        runs = [
            {"run": key, "name": served.name, "app": served.app, "state": state_of(served)}
            for key, served in self._house.runs.items()
        ]
        return JSONResponse({"runs": runs})

    async def describe(self, request: Request) -> Response:
        self._house.caller(request)
        served = self._house.served(request)
        _, job, _ = served.run.snapshot()
        return JSONResponse(
            {
                "run": served.run.key,
                "name": served.name,
                "app": served.app,
                "description": served.description,
                "state": state_of(served),
                "round": 0 if job is None else job.round,
                "chunk_bytes": served.chunk_bytes,
                "largest_update_bytes": None if job is None else job.expected.most_bytes,
                "carried_bytes": served.chunk_bytes,
            }
        )

    async def join(self, request: Request) -> Response:
        client, served = self._house.caller(request), self._house.served(request)
        body = await read_record(request, Joined)
        if body.app != served.app:
            raise Refusal(
                409,
                "other_app",
                f"The run's app is {served.app[:16]}..., and this client's is {body.app[:16]}.... Use the same file and the "
                "same --set on both sides; GET the run for its description.",
            )
        if served.codec is not None and served.codec not in body.codecs:
            raise Refusal(
                409,
                "codec",
                f"The run's updates travel as {served.codec}, which this client does not know: it knows plain float32"
                f"{', ' if body.codecs else ''}{', '.join(body.codecs)[:80]}. Use a newer client, or an app without that step.",
            )
        if served.roster is not None and client.key.text not in served.roster.members.values():
            raise Refusal(
                403,
                "roster",
                f"The roster of {served.roster.federation} has no member with the key {client.key.text}. Have whoever signs it "
                "add the key, and the coordinator start again with the new one.",
            )
        member = Member(client.client, client.name, body.train_examples, body.held_out_examples)
        await asyncio.to_thread(served.run.join, member)
        return Response(status_code=204)

    async def work(self, request: Request) -> Response:
        client, served = self._member(request)
        patience = Patience.of(request)
        work = await self._work(served, client, patience)
        return Response(status_code=204) if work is None else _carrying(served, client, patience, work, work)

    async def _work(self, served: ServedRun, client: str, patience: Patience) -> dict[str, Any] | None:
        """Return what there is to do for a client as soon as that is new to it; None if it is not in time."""
        place, since = (served.run.key, client), patience.since
        ends = self._house.clock() + patience.wait
        while True:
            waiter = self._house.waiting.waiter(place)
            served.run.heard(client)
            work = served.run.work(client, since)
            left = ends - self._house.clock()
            if work["serial"] != since or left <= 0:
                self._house.waiting.forget(place, waiter)
                return work if work["serial"] != since else None
            await self._news(place, waiter, left)
            self._house.access.still(client)

    async def _news(self, key: Hashable, waiter: asyncio.Future[None], seconds: float) -> None:
        try:
            await self._house.waiting.wait(key, waiter, seconds)
        except asyncio.CancelledError:  # the server's last act
            raise Refusal(503, "ending", "The coordinator is being stopped. Ask again when it is back.") from None

    async def receipts(self, request: Request) -> Response:
        _, served = self._member(request)
        found = await asyncio.to_thread(served.run.ledger.receipts, in_query(request, "since", 0))
        return JSONResponse({"receipts": found})

    async def list_clients(self, request: Request) -> Response:
        _, served = self._member(request)
        known = [c for c in self._house.access.clients() if c.client in served.run.members and not c.revoked]
        rows = [
            {"client": c.client, "name": c.name, "kind": c.key.kind.value, "key": encoded(c.key.raw)} for c in known
        ]
        return JSONResponse({"clients": rows})

    async def blob(self, request: Request) -> Response:
        client, name = self._house.caller(request), request.path_params["sha256"]
        if is_digest(name):
            for served in self._house.runs.values():
                path = served.run.ledger.blobs.path(name)
                if client.client in served.run.members and path.is_file():
                    return blob_answer(request, path, name, served.run.figures[client.client])
        raise Refusal(404, "unknown", "There is no such blob in a run that this client has joined.")

    async def announce(self, request: Request) -> Response:
        client, served, number, purpose = self._stage(request)
        body = await read_record(request, Announced, CLAIM_BYTES)
        if body.chunk_bytes != served.chunk_bytes:
            raise Refusal(413, "too_large", f"Updates come in chunks of {served.chunk_bytes:,} bytes.")
        claim = Claim(body.bytes, body.chunk_bytes, body.digests)
        upload = await asyncio.to_thread(served.run.begin_upload, client, number, purpose, claim)
        return JSONResponse({"have": sorted(upload.have)})

    async def chunk(self, request: Request) -> Response:
        client, served, number, purpose = self._stage(request)
        place = in_path(request, "chunk")
        await self._receive(request, served, client, served.run.open_chunk(client, number, purpose, place))
        return Response(status_code=204)

    async def send_whole(self, request: Request) -> Response:
        """Take an update of one chunk and its commit in one call: nothing of it is worth remembering half-way.

        The answer to who says how long it waits is its next work, too.
        """
        client, served, number, purpose = self._stage(request)
        patience = Patience.of(request) if "wait" in request.query_params else None
        size, given = whole_number(request.headers.get("content-length", "")), request.query_params
        if size is None:
            raise Refusal(411, "length", "An update is sent with Content-Length.")
        if size > served.chunk_bytes:
            raise Refusal(413, "too_large", f"An update of more than {served.chunk_bytes:,} bytes is announced first.")
        claim = Claim(size, served.chunk_bytes, (given.get("digest", ""),))
        word = Word(claim.root, in_query(request, "weight", 0), given.get("model", ""), given.get("signature", ""))
        served.run.begin_upload(client, number, purpose, claim, remembered=False)
        await self._receive(request, served, client, served.run.open_chunk(client, number, purpose, 0))
        at_once = served.at_once and size <= _SMALL
        duplicate = await self._committed(served, client, number, purpose, word, at_once=at_once)
        told: dict[str, Any] = {"duplicate": duplicate}
        work = None if patience is None else await self._work(served, client, patience)
        if patience is None or work is None:
            return JSONResponse(told)
        return _carrying(served, client, patience, {**told, "work": work}, work)

    async def _receive(self, request: Request, served: ServedRun, client: str, chunk: Chunk | None) -> None:
        """Read a chunk to its place, unless it is there."""
        if chunk is None:
            return
        figures, began, length = served.run.figures[client], self._house.clock(), chunk.left
        try:
            await read_chunk(request, length, chunk.write)
            if not chunk.finish():
                raise Refusal(422, "corrupt", "The chunk does not have the digest that was announced. Send it again.")
        except Refusal as refusal:
            figures.last_error = str(refusal)
            raise
        finally:
            chunk.drop()
        figures.bytes_received += length
        figures.upload_seconds += self._house.clock() - began

    async def commit(self, request: Request) -> Response:
        client, served, number, purpose = self._stage(request)
        word = await read_record(request, Word)
        return JSONResponse({"duplicate": await self._committed(served, client, number, purpose, word)})

    async def _committed(
        self, served: ServedRun, client: str, number: int, purpose: Purpose, word: Word, *, at_once: bool = False
    ) -> bool:
        commit = partial(served.run.commit, self._house.access.client(client).key)
        if at_once:
            return commit(client, number, purpose, vars(word))
        return await asyncio.to_thread(commit, client, number, purpose, vars(word))

    async def failure(self, request: Request) -> Response:
        client, served, number, purpose = self._stage(request)
        body = await read_record(request, Failure)
        reason = "".join(c if c.isprintable() else " " for c in body.reason[:_REASON_CHARACTERS])  # for terminals, too
        await asyncio.to_thread(served.run.fail, client, number, purpose, reason)
        return Response(status_code=204)

    async def leave_message(self, request: Request) -> Response:
        client, served, at = self._post(request)
        known = self._house.access.client(client)
        body = await read_record(request, Letter, CLAIM_BYTES)
        if body.to not in (SERVER, EVERYBODY) and body.to not in served.run.members:
            raise Refusal(404, "unknown", "The recipient is not a client of this run.")
        number = await asyncio.to_thread(self._house.mailbox.post, at, client, known.key, body)
        return JSONResponse({"number": number})

    async def read_messages(self, request: Request) -> Response:
        client, _, at = self._post(request)
        patience = Patience.of(request)
        since, ends = patience.since, self._house.clock() + patience.wait
        while True:
            waiter = self._house.waiting.waiter(at)
            found = await asyncio.to_thread(self._house.mailbox.read, at, client, since)
            left = ends - self._house.clock()
            if found or left <= 0:
                self._house.waiting.forget(at, waiter)
                return JSONResponse({"messages": found, "next": found[-1]["number"] if found else since})
            await self._news(at, waiter, left)
            self._house.access.still(client)

    def _stage(self, request: Request) -> tuple[str, ServedRun, int, Purpose]:
        client, served = self._house.caller(request), self._house.served(request)
        try:
            purpose = Purpose(request.path_params["purpose"])
        except ValueError:
            raise Refusal(404, "unknown", "A purpose is train or evaluate.") from None
        return client.client, served, in_path(request, "round"), purpose

    def _post(self, request: Request) -> tuple[str, ServedRun, Address]:
        client, served = self._member(request)
        number = in_path(request, "round")
        _, job, _ = served.run.snapshot()
        if job is None:  # between two rounds, or this process is new and has not come back to the round
            raise Refusal(410, "not_open", "No round is open. Ask for work.")
        if job.round != number:
            raise Refusal(410, "over", f"Round {number} is not open.")
        return client, served, Address(served.run.key, number, request.path_params["stage"])

    def _member(self, request: Request) -> tuple[str, ServedRun]:
        """Return who calls and the run, which it has joined. Raises Refusal."""
        client, served = self._house.caller(request).client, self._house.served(request)
        if client not in served.run.members:
            raise Refusal(403, "not_joined", "This client has not joined the run.")
        return client, served


def _carrying(
    served: ServedRun, client: str, patience: Patience, told: Mapping[str, Any], work: Mapping[str, Any]
) -> Response:
    """Return an answer that tells of work, with its model if that may come so and is new to the client."""
    size = work.get("bytes")
    if size is not None and size <= min(patience.carry, served.chunk_bytes) and work["model"] != patience.have:
        path = served.run.ledger.blobs.path(work["model"])
        with suppress(FileNotFoundError):  # the round has gone on meanwhile
            return carried_answer(told, path, size, served.run.figures[client])
    return JSONResponse(told)
