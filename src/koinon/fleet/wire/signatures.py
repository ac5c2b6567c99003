"""Who said it: Ed25519 everywhere, P-256 for browsers that have no Ed25519."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from koinon.errors import FleetError, FormatError

_P256_SCALAR = 32
_FIELD = 2**255 - 19
_REMEMBERED = 20_000  # signatures: two on the keys of each member of the largest cohort
_PARTIAL = ".koinon-part"  # ends the name of a file that is being written


class Kind(Enum):
    """A signature algorithm."""

    ED25519 = "ed25519"
    P256 = "p256"


@dataclass(frozen=True)
class PublicKey:
    """Who signs: 32 raw bytes of Ed25519, or the 65-byte uncompressed point of P-256."""

    kind: Kind
    raw: bytes

    def __post_init__(self) -> None:
        try:
            if self.kind is Kind.ED25519:
                Ed25519PublicKey.from_public_bytes(self.raw)
                _refuse_small_order(self.raw)
            else:
                self._point()
        except ValueError as error:
            raise FormatError(f"{len(self.raw)} bytes are no {self.kind.value} public key.") from error

    @property
    def text(self) -> str:
        """The key as one word, e.g. in a roster: its kind, a colon, base64url."""
        return f"{self.kind.value}:{encoded(self.raw)}"

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Return the key of :attr:`text`. Raises FormatError."""
        kind, _, raw = text.partition(":")
        if kind not in [own.value for own in Kind]:
            raise FormatError(
                f"A key begins with ed25519: or p256:, followed by its bytes in base64url; found {text[:80]!r}."
            )
        return cls(Kind(kind), decoded(raw))

    def signed(self, signature: bytes, text: bytes) -> bool:
        """Return whether ``signature`` over ``text`` is this key's: 64 bytes in either kind."""
        if len(signature) != 2 * _P256_SCALAR:
            return False
        try:
            if self.kind is Kind.ED25519:
                Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, text)
            else:
                halves = (int.from_bytes(part, "big") for part in (signature[:_P256_SCALAR], signature[_P256_SCALAR:]))
                self._point().verify(encode_dss_signature(*halves), text, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def _point(self) -> ec.EllipticCurvePublicKey:
        if len(self.raw) != 2 * _P256_SCALAR + 1:
            raise ValueError("a P-256 point is given uncompressed")
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.raw)


Signed: TypeAlias = Callable[[PublicKey, bytes, bytes], bool]
"""Says whether a signature over a text is a key's: ``signed(key, signature, text)``."""


def remembering() -> Signed:
    """Return :meth:`PublicKey.signed` as a function that verifies a signature once, however often it is asked."""
    return lru_cache(_REMEMBERED)(PublicKey.signed)


def _refuse_small_order(raw: bytes) -> None:
    """Raise ValueError for one of the points under which anybody can sign anything: times 8 they are the neutral one.

    The same point on the Montgomery curve, u = (1 + y) / (1 - y), is what X25519 refuses for that reason (RFC 7748).
    """
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    u = (1 + y) * pow(1 - y, -1, _FIELD) % _FIELD
    point = X25519PublicKey.from_public_bytes(u.to_bytes(32, "little"))
    X25519PrivateKey.from_private_bytes(bytes(32)).exchange(point)


class OwnKey:
    """An Ed25519 key that never leaves its file."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)

    @classmethod
    def at(cls, path: Path) -> OwnKey:
        """Return the key of a file, made by the system's generator if there is none; only its owner may read it."""
        secret = kept_secret(path, lambda: os.urandom(32))
        try:
            return cls(secret)
        except ValueError as error:
            raise FleetError(f"{path} is no key ({error}). Restore it from a copy, or enrol anew.") from error

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(Kind.ED25519, self._key.public_key().public_bytes_raw())

    def sign(self, text: bytes) -> bytes:
        """Return the signature over ``text``."""
        return self._key.sign(text)


def signed_text(purpose: str, *lines: object) -> bytes:
    """Return what is signed for a purpose: one line each, so that no two messages share a text."""
    texts = [f"koinon/1 {purpose}", *(str(line) for line in lines)]
    if any("\n" in text for text in texts):
        raise FormatError("What is signed is made of single lines.")
    return ("\n".join(texts) + "\n").encode()


def digest(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def root(digests: list[str]) -> str:
    """Return the SHA-256 over chunk digests, one after the other."""
    return digest(b"".join(bytes.fromhex(item) for item in digests))


def encoded(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return the bytes of base64url, with or without padding. Raises FormatError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("A value is not base64url.") from error


def kept_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return the secret of a file, made if there is none; only its owner may read it. Raises FleetError."""
    if not path.exists():
        write_secret(path, make().hex().encode())
    try:
        return bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise FleetError(f"{path} is no key ({error}). Restore it from a copy.") from error


def write_secret(path: Path, data: bytes | memoryview) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    partial.unlink(missing_ok=True)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def forget_partial(folder: Path) -> None:
    """Delete what a killed process left of secrets in a folder that this process has locked."""
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)
