"""A party made of ``http.client`` and a key, after docs/protocol.md alone: it can say whatever it likes."""

import base64
import hashlib
import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from koinon.store import tensors

SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The body as strict JSON."""
        return json.loads(self.body, parse_constant=lambda word: json.loads("")) if self.body else None

    @property
    def code(self) -> str | None:
        """The error's word."""
        return self.json["error"]["code"] if self.status >= 400 and self.body else None


def call(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Make one call; a body that is not bytes is sent as JSON."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=SECONDS)
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    if body is not None and not isinstance(body, bytes):
        body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        with suppress(BrokenPipeError):  # the other side has heard enough and may have said why
            connection.request(method, path, body, {**sent, **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
    except ConnectionError:
        return Answer(0, b"", {})  # it closed the connection
    finally:
        connection.close()


def raw(url: str, data: bytes, seconds: float = SECONDS) -> bytes:
    """Send bytes as they are and return all that comes until the other side closes or the time is up."""
    place = urlsplit(url)
    deadline, found = time.monotonic() + seconds, b""
    with socket.create_connection((place.hostname or "", place.port), timeout=seconds) as line:
        try:
            line.sendall(data)
            while (left := deadline - time.monotonic()) > 0:
                line.settimeout(left)
                piece = line.recv(65536)
                if not piece:
                    break
                found += piece
        except (TimeoutError, ConnectionError, BrokenPipeError):
            pass
    return found


def encoded(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def text(*lines: object) -> bytes:
    """Return what is signed."""
    return "".join(f"{line}\n" for line in lines).encode()


def sha256(data: bytes) -> str:
    """Return the digest in hex."""
    return hashlib.sha256(data).hexdigest()


class Key:
    """A key of either kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._key: Any = Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> bytes:
        """The public half, as the protocol has it."""
        if self.kind == "ed25519":
            return bytes(self._key.public_key().public_bytes_raw())
        return bytes(self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    def sign(self, data: bytes) -> bytes:
        """Return 64 bytes."""
        if self.kind == "ed25519":
            return bytes(self._key.sign(data))
        halves = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256())))
        return b"".join(half.to_bytes(32, "big") for half in halves)


@dataclass
class Party:
    """One client. Its methods make right calls; wrong ones are made of the parts."""

    url: str
    name: str
    key: Key
    client: str = ""
    token: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Make a call with this party's session."""
        return call(self.url, method, path, body, self.token, headers)

    def enrolment(self, link: str, **changes: Any) -> dict[str, Any]:
        """Return the body of an enrolment."""
        token = link.rpartition("token=")[2]
        said = {"token": token, "name": self.name, "kind": self.key.kind, "key": encoded(self.key.public), **changes}
        signed = text("koinon/1 enrol", sha256(said["token"].encode()), said["name"], said["key"])
        return {"signature": encoded(self.key.sign(signed)), **said}

    def enrol(self, link: str) -> Answer:
        """Use a join link."""
        answer = call(self.url, "POST", "/v1/enrol", self.enrolment(link))
        if answer.status == 200:
            self.client = answer.json["client"]
        return answer

    def challenge(self) -> str:
        """Ask for a challenge."""
        answer = call(self.url, "POST", "/v1/challenge", {"client": self.client})
        return str(answer.json["challenge"])

    def session_body(self, challenge: str) -> dict[str, Any]:
        """Return the answer to a challenge."""
        signed = text("koinon/1 session", self.client, challenge)
        return {"client": self.client, "challenge": challenge, "signature": encoded(self.key.sign(signed))}

    def begin(self) -> Answer:
        """Begin a session."""
        answer = call(self.url, "POST", "/v1/session", self.session_body(self.challenge()))
        if answer.status == 200:
            self.token = answer.json["token"]
        return answer

    def join(self, run: Mapping[str, Any], **changes: Any) -> Answer:
        """Join a run."""
        said = {"app": run["app"], "train_examples": 8, "held_out_examples": 0, "codecs": [], "versions": {}, **changes}
        return self.call("POST", f"/v1/runs/{run['run']}/join", said)

    def work(self, run: str, since: int | None = None, wait: float = 0) -> Answer:
        """Ask what there is to do."""
        known = "" if since is None else f"&since={since}"
        return self.call("GET", f"/v1/runs/{run}/work?wait={wait}{known}")


@dataclass(frozen=True)
class Update:
    """A file cut into chunks, for one place of a run."""

    party: Party
    run: str
    work: Mapping[str, Any]
    data: bytes
    chunk_bytes: int = 1 << 20
    weight: Any = 8

    @property
    def path(self) -> str:
        """Where it goes."""
        return f"/v1/runs/{self.run}/rounds/{self.work['round']}/{self.work['purpose']}"

    @property
    def chunks(self) -> list[bytes]:
        """The pieces."""
        return [self.data[i : i + self.chunk_bytes] for i in range(0, len(self.data), self.chunk_bytes)]

    @property
    def digests(self) -> list[str]:
        """Theirs."""
        return [sha256(chunk) for chunk in self.chunks]

    @property
    def root(self) -> str:
        """What is signed of them."""
        return sha256(b"".join(bytes.fromhex(item) for item in self.digests))

    def announce(self) -> Answer:
        """Say what will come."""
        said = {"bytes": len(self.data), "chunk_bytes": self.chunk_bytes, "digests": self.digests}
        return self.party.call("POST", f"{self.path}/update", said)

    def put(self, number: int, data: bytes | None = None) -> Answer:
        """Send one chunk."""
        return self.party.call("PUT", f"{self.path}/update/{number}", self.chunks[number] if data is None else data)

    def word(self, key: Key | None = None, **lies: Any) -> dict[str, Any]:
        """Return the body of a commit, signed over the truth, or over what differs from it."""
        truth = {
            "run": self.run,
            "round": self.work["round"],
            "purpose": self.work["purpose"],
            "client": self.party.client,
            "model": self.work["model"],
            "root": self.root,
            "bytes": len(self.data),
            "weight": self.weight,
        }
        signed = text("koinon/1 update", *{**truth, **lies}.values())
        signature = (key or self.party.key).sign(signed)
        return {"root": self.root, "weight": self.weight, "model": self.work["model"], "signature": encoded(signature)}

    def commit(self, word: Mapping[str, Any] | None = None) -> Answer:
        """Commit it."""
        return self.party.call("POST", f"{self.path}/commit", self.word() if word is None else word)

    def put_whole(self, data: bytes | None = None, **lies: Any) -> Answer:
        """Announce, send and commit it in one call; ``lies`` stand in the address instead of the truth."""
        word = {"digest": self.digests[0], **self.word(), **lies}
        asked = urlencode({name: word[name] for name in ("digest", "weight", "model", "signature")})
        return self.party.call("PUT", f"{self.path}/update?{asked}", self.data if data is None else data)

    def send(self) -> Answer:
        """Do it all, and return the commit's answer."""
        for answer in (self.announce(), *(self.put(i) for i in range(len(self.chunks)))):
            if answer.status >= 300:
                return answer
        return self.commit()


def file_of(leaves: Mapping[str, Any], metrics: Mapping[str, Any] | None = None) -> bytes:
    """Return an update's file."""
    arrays = {f"update.{name}": np.asarray(value) for name, value in leaves.items()}
    arrays |= {f"metrics.{name}": np.asarray(value) for name, value in (metrics or {}).items()}
    return b"".join(tensors.pieces(arrays))


def messages_path(run: str, round: int, stage: str) -> str:
    """Return the mailbox of a stage."""
    return f"/v1/runs/{run}/rounds/{round}/stages/{stage}/messages"


def message(
    party: Party, run: str, round: int, stage: str, to: str, body: bytes, sender: str | None = None
) -> dict[str, Any]:
    """Return a signed message."""
    signed = text("koinon/1 message", run, round, stage, sender or party.client, to, sha256(body))
    return {"to": to, "body": encoded(body), "signature": encoded(party.key.sign(signed))}


def statuses(answers: Sequence[Answer]) -> list[int]:
    """Return theirs."""
    return [answer.status for answer in answers]


def file_header(header: bytes) -> bytes:
    """Return a tensor file of just this header."""
    return len(header).to_bytes(8, "little") + header
