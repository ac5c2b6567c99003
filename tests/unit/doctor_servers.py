"""Servers on 127.0.0.1 that are well, or ill in one way, for the tests of ``koinon doctor``."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import koinon
from koinon.fleet.service import probe
from koinon.fleet.wire.certificates import ServerCertificate, own_certificate
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.offer import Offer, OfferedRun
from koinon.fleet.wire.receipts import canonical
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey, decoded, digest, signed_text

APP = {"algorithm": {"name": "fedavg", "rate": 0.1}, "seed": 0}
HEART = OfferedRun("r-1", "heart", digest(canonical(APP).encode()), "training", 1_000, 1_200, 600.0, APP)
OFFER = Offer((1,), koinon.__version__, (HEART,))
PARTY, CHALLENGE, SESSION = "c-1", "a-challenge", "a-session"
TOKEN, USED = "a-good-token", "a-used-token"


@dataclass(frozen=True)
class Served:
    """A server that runs: its address, the authority's fingerprint, the headers of every call that it got."""

    port: int
    authority: str | None
    calls: list[tuple[str, str | None]] = field(default_factory=list)  # path, Authorization

    def link(self, *, host: str = "127.0.0.1", token: str = TOKEN, scheme: str = "https") -> JoinLink:
        """Return the link that leads here."""
        return JoinLink(f"{scheme}://{host}:{self.port}", token, self.authority)


@dataclass(frozen=True)
class Behaviour:
    """How a coordinator differs from a healthy one."""

    offer: Offer = OFFER
    date: str | None = None  # the Date header, if it lies
    largest_body: int | None = None  # a reverse proxy's bound
    authority: bytes | None = None  # what GET /v1/ca says, if another
    hangs: bool = False  # never answers /healthz
    party: PublicKey | None = None  # whose session opens the probes, too
    clients: Path | None = None  # mTLS: the authority of parties' certificates


@contextmanager
def coordinator(behaviour: Behaviour = Behaviour(), tls: ServerCertificate | None = None) -> Iterator[Served]:
    """Run the doctor's side of a coordinator in a thread."""
    served = Served(0, None if tls is None else tls.fingerprint)
    listener = socket.create_server(("127.0.0.1", 0))
    files: dict[str, Any] = {} if tls is None else {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
    if behaviour.clients is not None:
        files |= {"ssl_ca_certs": str(behaviour.clients), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    config = uvicorn.Config(
        _app(behaviour, tls, served.calls), log_level="critical", date_header=behaviour.date is None, lifespan="off",
        timeout_graceful_shutdown=1, **files,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield Served(listener.getsockname()[1], served.authority, served.calls)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def _app(behaviour: Behaviour, tls: ServerCertificate | None, calls: list[tuple[str, str | None]]) -> Starlette:
    async def admit(request: Request) -> None:
        given = request.headers.get("authorization")
        if given == f"Invitation {USED}":
            raise Refusal(401, "invitation", "The invitation has been used.")
        if given not in (f"Invitation {TOKEN}", f"Bearer {SESSION}"):
            raise Refusal(401, "token", "There is no such invitation.")

    async def healthz(request: Request) -> Response:
        if behaviour.hangs:
            await asyncio.sleep(60)
        headers = {} if behaviour.date is None else {"Date": behaviour.date}
        return JSONResponse({"status": "ok", "version": behaviour.offer.version}, headers=headers)

    async def authority(request: Request) -> Response:
        own = None if tls is None or tls.authority is None else tls.authority.read_bytes()
        pem = behaviour.authority or own
        return PlainTextResponse(pem) if pem else JSONResponse({}, 404)

    async def challenge(request: Request) -> Response:
        return JSONResponse({"challenge": CHALLENGE})

    async def session(request: Request) -> Response:
        body = await request.json()
        text = signed_text("session", PARTY, CHALLENGE)
        if behaviour.party is None or not behaviour.party.signed(decoded(body["signature"]), text):
            raise Refusal(403, "signature", "The challenge is not signed by this client's key.")
        return JSONResponse({"token": SESSION, "seconds": 900})

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return JSONResponse(error.to_json(), error.status)

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/v1/ca", authority),
            Route("/v1/challenge", challenge, methods=["POST"]),
            Route("/v1/session", session, methods=["POST"]),
            *probe.routes(admit, lambda: behaviour.offer),
        ],
        exception_handlers={Refusal: refused},
    )

    async def watched(scope, receive, send):
        headers = {name: value for name, value in scope["headers"]}
        said = headers.get(b"authorization")
        calls.append((scope["path"], None if said is None else said.decode()))
        length = int(headers.get(b"content-length", b"0"))
        if behaviour.largest_body is not None and length > behaviour.largest_body:
            await PlainTextResponse("too large", 413)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return watched


def certificate(
    folder: Path,
    *,
    days: tuple[float, float] = (-1, 365),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> ServerCertificate:
    """Return a certificate under an authority of its own, valid from and until so many days from now."""
    made = own_certificate(folder, ["127.0.0.1"])
    assert made.authority is not None
    old = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = (now + datetime.timedelta(days=day) for day in days)
    kept = [extension for extension in old.extensions if extension.oid != ExtensionOID.EXTENDED_KEY_USAGE]
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), old.serial_number, begins, ends, kept
    ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    new = builder.sign(signer, hashes.SHA256())
    made.certificate.write_bytes(new.public_bytes(serialization.Encoding.PEM))
    return made


def party_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a party's certificate and key; its authority is ``ca.pem`` beside it."""
    made = certificate(folder, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    return made.certificate, made.key


@contextmanager
def listening(says: bytes | None) -> Iterator[int]:
    """Listen on a port; say ``says`` to whoever comes and hang up, or with None keep silent until the end."""
    kept: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                there, _ = listener.accept()
                kept.append(there)
                if says is not None:
                    with suppress(OSError):
                        there.settimeout(5)
                        there.recv(4096)
                        there.sendall(says)
                    there.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for there in kept:
            there.close()


@contextmanager
def slow_line(port: int, bytes_per_second: int) -> Iterator[int]:
    """Pass bytes on to a port of 127.0.0.1, both ways together no faster than the rate."""
    lock, kept = threading.Lock(), []
    listener = socket.create_server(("127.0.0.1", 0))
    piece = max(256, bytes_per_second // 50)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(piece):
                with lock:
                    time.sleep(len(data) / bytes_per_second)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", port), timeout=5)
                kept.extend((here, there))
                for one, other in ((here, there), (there, here)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                        one.setsockopt(socket.SOL_SOCKET, option, 32_768)
                    threading.Thread(target=copy, args=(one, other), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for each in (listener, *kept):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
