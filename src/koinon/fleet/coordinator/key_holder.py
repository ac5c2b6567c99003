"""The way to a key holder: HTTPS under the certificate of its link, a call at a time. It is asked, and never believed twice."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from koinon.errors import FleetError, FormatError
from koinon.fleet.wire.certificates import fingerprint
from koinon.fleet.wire.encrypted_terms import COUNT, KEY, SUM, TERMS, HolderLink
from koinon.fleet.wire.refusal import Refusal
from koinon.privacy.encrypted_sum.keys import PublicKey

_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 256 << 10  # of a sum on its way, and of decrypting it
_CONTROL_BYTES = 1 << 20
_OK = 200


class Silent(FleetError):
    """The key holder does not answer, or another answers in its place."""


@dataclass(frozen=True)
class Terms:
    """A key holder's public key, and the digest of the roster it goes by; None where it takes every client."""

    key: PublicKey
    roster: str | None


class KeyHolder:
    """One key holder, as a coordinator reaches it."""

    def __init__(self, link: HolderLink) -> None:
        self._link = link
        self._context: ssl.SSLContext | None = None
        self._terms: Terms | None = None

    def __str__(self) -> str:
        return f"the key holder at {self._link.url}"

    def terms(self) -> Terms:
        """Return its public key and the clients it knows, asked for once. Raises Silent, Refusal, FormatError."""
        if self._terms is None:
            key = PublicKey.from_bytes(self._call("GET", KEY))
            try:
                roster = json.loads(self._call("GET", TERMS))["roster"]
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError("Its terms cannot be read: it is another version of koinon.") from error
            self._terms = Terms(key, None if roster is None else str(roster))
        return self._terms

    def forget(self) -> None:
        """Ask for the terms again the next time."""
        self._terms, self._context = None, None

    def sum(self, request: bytes, most: int) -> bytes:
        """Return its answer, of at most ``most`` bytes, to a request. Raises Silent, Refusal, FormatError."""
        return self._call("POST", SUM, request, most)

    def count(self, request: bytes) -> bytes:
        """Return its share of how many clients are in a sum. Raises Silent, Refusal, FormatError."""
        return self._call("POST", COUNT, request)

    def _call(self, method: str, path: str, body: bytes | None = None, most: int = _CONTROL_BYTES) -> bytes:
        try:
            if self._context is None:
                self._context = self._trusting()
            head = {"Authorization": f"Bearer {self._link.token}"}
            seconds = _SECONDS + len(body or b"") / _SLOWEST_BYTES_PER_SECOND
            status, answer = self._exchanged(self._context, seconds, (method, path, body, head), most)
        except (OSError, http.client.HTTPException) as error:
            raise Silent(f"{self} ({type(error).__name__}: {error})") from error
        if status == _OK:
            return answer
        try:
            told = json.loads(answer)["error"]
            raise Refusal(status, str(told["code"]), f"{self}, which refuses: {str(told['message'])[:2000]}")
        except (ValueError, KeyError, TypeError) as error:
            raise Silent(f"{self}, where something else answers (status {status})") from error

    def _trusting(self) -> ssl.SSLContext:
        """Return what trusts the key holder's own authority, once that is the link's."""
        blind = ssl.create_default_context()
        blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE  # it is compared with the link
        _, pem = self._exchanged(blind, _SECONDS, ("GET", "/v1/ca", None, {}), _CONTROL_BYTES)
        try:
            found = fingerprint(pem)
        except ValueError:
            found = "none"
        if found != self._link.authority:
            raise OSError(f"its certificate is of {found[:16]}, and the link is for {self._link.authority[:16]}")
        return ssl.create_default_context(cadata=pem.decode("ascii"))

    def _exchanged(
        self, context: ssl.SSLContext, seconds: float, call: tuple[str, str, bytes | None, dict[str, str]], most: int
    ) -> tuple[int, bytes]:
        at = urlsplit(self._link.url)
        connection = http.client.HTTPSConnection(at.hostname or "", at.port or 443, context=context, timeout=seconds)
        with closing(connection):
            method, path, body, head = call
            connection.request(method, at.path + path, body, head)
            answer = connection.getresponse()
            most = most if answer.status == _OK else _CONTROL_BYTES
            content = answer.read(most + 1)
            if len(content) > most:
                raise OSError(f"an answer of more than {most:,} bytes")
            return answer.status, content
