"""A participant's side of the wire: one pool of connections that trusts one coordinator and waits out its absences."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import urllib3

from koinon.errors import FleetError, FormatError
from koinon.fleet.participant.http_proxy import proxy_address, proxy_pool
from koinon.fleet.wire.carried import CARRIED, read_head
from koinon.fleet.wire.certificates import fingerprint
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.refusal import Refusal

_CONNECT_SECONDS = 15.0
_READ_SECONDS = 90.0  # longer than a long poll
_LONGEST_PAUSE = 15.0
_BLOCK = 1 << 20
_SOON = 2  # pauses after which the next is a second at most
_TRANSFERS = 3  # of a blob that does not come as announced
_STRANGE = "http"  # the code of an answer that is not of the protocol
_TUNNEL_REFUSED = "Tunnel connection failed: 407"
_CHANCE = random.SystemRandom()  # an app file is loaded with a fixed seed, and parties must not try again in step
_AUTHORIZATION = "Authorization"
_LONGEST_WAIT = 60.0  # that a Retry-After is believed
_AGAIN = (408, 425, 429)
Model: TypeAlias = tuple[str, memoryview]  # its digest and its bytes, which have that


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How a participant reaches its coordinator."""

    url: str
    authority: str | None = None  # PEM of the CA to trust, and no other; None: those the system trusts
    shown: str | None = None  # SHA-256 of the very certificate to trust, and no other, whoever has signed it
    proxy: str | None = None  # http://user:password@host:port
    certificate: tuple[Path, Path] | None = None  # for mTLS: certificate and key
    patience: float = 86_400.0  # seconds without a coordinator until it gives up


class Unreachable(FleetError):
    """A coordinator has not answered for longer than one was ready to wait."""


class Connection:
    """Calls that are sent again until they are answered. Only :meth:`put` may be used by several threads at once."""

    def __init__(self, reach: Reach, say: Callable[[str], None]) -> None:
        self._reach, self._say = reach, say
        self.patience = reach.patience  # seconds without an answer until it gives up
        self._pool = _pool(reach, _context(reach))
        self._token: str | None = None
        self._met = False  # whether a coordinator has answered: then what answers otherwise stands between
        self._renewing = threading.Lock()
        self.renew: Callable[[], str] = self._no_session

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, signed_in: bool = True) -> Any:
        """Return a JSON answer, None if it is empty. Raises Refusal for an error that sending again cannot mend."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        found = None

        def look(response: urllib3.BaseHTTPResponse) -> None:
            nonlocal found
            found = _json(response)

        self._sent(method, path, data, headers, signed_in, look)
        return found

    def put(self, path: str, parts: Sequence[memoryview]) -> None:
        """Send bytes that lie in parts."""
        self._sent("PUT", path, parts, _bytes(parts), True)

    def carried(
        self, method: str, path: str, parts: Sequence[memoryview] | None, most: int
    ) -> tuple[Any, Model | None]:
        """Return a JSON answer, None if it is empty, and the model of at most so many bytes that came behind it, if one did."""
        found: tuple[Any, Model | None] = None, None

        def look(response: urllib3.BaseHTTPResponse) -> None:
            nonlocal found
            carries = response.headers.get("Content-Type") == CARRIED
            found = _carried(response, most) if carries else (_json(response), None)

        self._sent(method, path, parts, {} if parts is None else _bytes(parts), True, look)
        return found

    def size(self, digest: str) -> int:
        """Return a blob's size in bytes."""
        found = 0

        def look(response: urllib3.BaseHTTPResponse) -> None:
            nonlocal found
            whole = response.headers.get("Content-Range", "").rpartition("/")[2]
            if not whole.isdigit():
                raise urllib3.exceptions.ProtocolError("the blob's size is not told")
            response.read()
            found = int(whole)

        self._sent("GET", f"/v1/blobs/{digest}", None, {"Range": "bytes=0-0"}, True, look)
        return found

    def download(self, digest: str, size: int) -> memoryview:
        """Return a blob whose bytes are checked against its digest; one that was damaged on its way is fetched again.

        Raises FormatError if it is always another.
        """
        for _ in range(_TRANSFERS):
            data, found = self._transfer(f"/v1/blobs/{digest}", size)
            if found == digest:
                return data
            self._say("The model was damaged on its way; fetching it again")
        raise FormatError("The model that came is not the one that was announced. Its transfer was tampered with.")

    def _transfer(self, path: str, size: int) -> tuple[memoryview, str]:
        """Return a blob and its digest; an interrupted transfer goes on where it stopped."""
        data = np.empty(size, np.uint8).data  # in huge pages where the system has them
        place, state = 0, hashlib.sha256()

        def more(response: urllib3.BaseHTTPResponse) -> None:
            nonlocal place, state
            if response.status == 200:  # what stands between may know no ranges
                place, state = 0, hashlib.sha256()
            while place < size:
                place += _more(response, data[place : place + _BLOCK], state)

        while place < size:
            self._sent(
                "GET", path, None, {"Range": f"bytes={place}-"}, True, more, lambda: {"Range": f"bytes={place}-"}
            )
        return data, state.hexdigest()

    def close(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def _sent(
        self,
        method: str,
        path: str,
        data: bytes | Sequence[memoryview] | None,
        headers: Mapping[str, str],
        signed_in: bool,
        read: Callable[[urllib3.BaseHTTPResponse], None] | None = None,
        again: Callable[[], Mapping[str, str]] | None = None,
    ) -> tuple[int, bytes]:
        """Send until there is an answer; a session that has ended is begun anew."""
        began, pauses, ended = time.monotonic(), 0, ""
        while True:
            problem = ""
            try:
                own = {**headers, **(again() if again else {}), **self._authorization(signed_in)}
                status, answer, wait = self._once(method, path, data, own, read)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if _TUNNEL_REFUSED in str(error):
                    raise self._unknown_to_proxy() from error
                status, answer, wait, problem = 0, b"", None, _plain(error)
            if 200 <= status < 300:
                self._met = True
                return status, answer
            if status == 401 and signed_in and own[_AUTHORIZATION] != ended:
                self._forget(own)
                ended, before = own[_AUTHORIZATION], ended
                pauses = min(pauses, _SOON)  # a coordinator is there; it was started anew
                if not before:
                    continue
            elif status:
                self._check_passing(_refusal(status, answer))
            problem = problem or f"answered {status}: {_refusal(status, answer)}"
            self._rest(problem, _pause(pauses, wait), time.monotonic() - began, loud=pauses >= 2)
            pauses += 1

    def _check_passing(self, refusal: Refusal) -> None:
        """Raise what was answered unless it may be another thing the next time: sending again is always safe."""
        if refusal.status == 407:
            raise self._unknown_to_proxy()
        strange = self._met and refusal.code == _STRANGE
        if not strange and refusal.status < 500 and refusal.status not in _AGAIN:
            raise refusal

    def _once(
        self,
        method: str,
        path: str,
        data: bytes | Sequence[memoryview] | None,
        headers: Mapping[str, str],
        read: Callable[[urllib3.BaseHTTPResponse], None] | None,
    ) -> tuple[int, bytes, float | None]:
        response = self._pool.request(
            method,
            self._reach.url + path,
            body=cast(bytes, data),
            headers=headers,
            preload_content=False,
            retries=False,
            redirect=False,
        )
        try:
            if read is not None and response.status in (200, 206):
                read(response)
                return response.status, b"", None
            after = response.headers.get("Retry-After", "")
            return response.status, response.read(), float(after) if after.isdigit() else None
        finally:
            response.release_conn()

    def _authorization(self, signed_in: bool) -> dict[str, str]:
        if not signed_in:
            return {}
        with self._renewing:  # of two threads one begins a session, and both use it: a second would end the first
            if self._token is None:
                self._token = self.renew()
            return {_AUTHORIZATION: f"Bearer {self._token}"}

    def _forget(self, sent: Mapping[str, str]) -> None:
        """Drop a session that was not accepted, unless it has been replaced meanwhile."""
        with self._renewing:
            if sent[_AUTHORIZATION] == f"Bearer {self._token}":
                self._token = None

    def _rest(self, problem: str, pause: float, gone: float, *, loud: bool) -> None:
        if gone > self.patience:
            raise Unreachable(
                f"{self._reach.url} has not answered for {gone:.0f} s ({problem}). Start the same line again when it is "
                "back; koinon doctor LINK says what is wrong."
            )
        pause = min(pause, max(0.0, self.patience - gone))
        if loud:
            self._say(f"{self._reach.url} {problem} (trying again in {pause:.1f} s)")
        time.sleep(pause)

    def _unknown_to_proxy(self) -> FleetError:
        where = "" if self._reach.proxy is None else proxy_address(self._reach.proxy)
        return FleetError(
            f"The proxy {where} asks for a name and a password, or for others (407). Give them as "
            "--proxy http://USER:PASSWORD@HOST:PORT, or so in HTTPS_PROXY; write @ as %40, : as %3A, / as %2F."
        )

    @staticmethod
    def _no_session() -> str:
        raise FleetError("This connection has no session.")


def _pause(pauses: int, wait: float | None) -> float:
    """Return how long to wait after so many pauses, or after what Retry-After said; never in step with others."""
    if wait:
        return min(_LONGEST_WAIT, wait) * _CHANCE.uniform(1.0, 2.0)
    return min(_LONGEST_PAUSE, 0.25 * float(1 << min(pauses, 10))) * _CHANCE.uniform(0.5, 1.0)


def pinned_authority(link: JoinLink, reach: Reach, say: Callable[[str], None]) -> str | None:
    """Return the PEM of the CA that a link pins, fetched from the coordinator; None if the link pins none.

    It comes over a connection that nothing is known of, so nothing secret is sent there and it counts only if its
    fingerprint is the link's. Raises FleetError for another.
    """
    if link.authority is None:
        return None
    connection = Connection(replace(reach, url=link.url, authority=None, patience=min(60.0, reach.patience)), say)
    context = _context(connection._reach)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection._pool = _pool(connection._reach, context)
    try:
        with warnings.catch_warnings():  # that nothing is verified yet is the point of what follows
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            _, pem = connection._sent("GET", "/v1/ca", None, {}, False)
    finally:
        connection.close()
    try:
        found = fingerprint(pem)
    except ValueError:
        found = "no certificate"
    if found != link.authority:
        raise FleetError(
            f"{link.url} shows the authority {found[:16]}..., and the join link expects {link.authority[:16]}.... Either "
            "the link is of another coordinator, or somebody stands between. Nothing was sent. Ask for a new link."
        )
    return pem.decode("ascii")


def _context(reach: Reach) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=reach.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if reach.shown is not None:  # compared by the pool
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if reach.certificate is not None:
        try:
            context.load_cert_chain(*reach.certificate)
        except OSError as error:
            raise FleetError(f"The certificate {reach.certificate[0]} cannot be used: {error}.") from error
    return context


def _pool(reach: Reach, context: ssl.SSLContext) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    tls: dict[str, Any] = {"ssl_context": context, "assert_fingerprint": reach.shown}
    if reach.proxy is None:
        return urllib3.PoolManager(2, timeout=timeout, maxsize=2, blocksize=1 << 18, **tls)
    return proxy_pool(reach.proxy, timeout=timeout, maxsize=2, **tls)


def _bytes(parts: Sequence[memoryview]) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Length": str(sum(map(len, parts)))}


def _json(response: urllib3.BaseHTTPResponse) -> Any:
    try:
        return json.loads(response.read())
    except ValueError as error:
        raise urllib3.exceptions.ProtocolError("what answers speaks no JSON: it is no coordinator") from error


def _carried(response: urllib3.BaseHTTPResponse, most: int) -> tuple[Any, Model | None]:
    """Return an answer and the model behind it; without that if it is not the one that was announced: it can be fetched."""
    try:
        told = read_head(partial(_exactly, response))
        work = told.get("work", told)
        name, size = str(work["model"]), int(work["bytes"])
        if not 0 <= size <= most:
            raise FormatError(f"a model of {size:,} bytes, where {most:,} may come")
    except (FormatError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise urllib3.exceptions.ProtocolError(f"what comes with a model is not of this protocol: {error}") from error
    data, state, place = np.empty(size, np.uint8).data, hashlib.sha256(), 0
    while place < size:
        place += _more(response, data[place : place + _BLOCK], state)
    return told, (name, data) if state.hexdigest() == name else None


def _exactly(response: urllib3.BaseHTTPResponse, count: int) -> bytes:
    """Return the next bytes: by the same way as all that follows, for what urllib3 has buffered does not go it."""
    data = bytearray(count)
    place = 0
    while place < count and (more := _received(response, memoryview(data)[place:])):
        place += more
    return bytes(data[:place])


def _more(response: urllib3.BaseHTTPResponse, into: memoryview, state: hashlib._Hash) -> int:
    """Read, and hash, what has come of a blob; return how many bytes that is."""
    count = _received(response, into)
    if not count:
        raise urllib3.exceptions.ProtocolError("the blob was cut short")
    state.update(into[:count])
    return count


def _received(response: urllib3.BaseHTTPResponse, into: memoryview) -> int:
    """Read into memory. urllib3 copies three times on the way, which its own response from the standard library does not."""
    inner = getattr(response, "_fp", None)
    if isinstance(inner, http.client.HTTPResponse):
        try:
            return inner.readinto(into)
        except http.client.HTTPException as error:
            raise urllib3.exceptions.ProtocolError("the blob was cut short") from error
    return response.readinto(into)


def _refusal(status: int, answer: bytes) -> Refusal:
    try:
        error = json.loads(answer)["error"]
        return Refusal(status, str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return Refusal(status, _STRANGE, f"The coordinator answered {status}: {answer[:200].decode(errors='replace')}")


def _plain(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if "RemoteDisconnected" in str(reason):
        return "closes the connection without a word: if it always does, it may ask for --certificate and --key"
    cause = reason.__cause__ or reason  # urllib3 wraps what the system says
    return f"cannot be reached: {type(cause).__name__}: {str(cause)[:160]}"
