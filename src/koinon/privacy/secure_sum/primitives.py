"""The cryptography that the secure sum stands on, all of it from the package `cryptography`.

X25519 (RFC 7748), HKDF-SHA-256 (RFC 5869), AES-256-GCM, AES-256 in counter mode (NIST SP 800-38A, with the counter of
SP 800-38D). Every key has one use: its role, the transcript and who is at its ends are in its derivation, but for the key of a
pair's codes, which stands: they are in what it codes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import Enum
from functools import cache, cached_property
from time import perf_counter
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from koinon.errors import ProtocolError

KEY_BYTES = 32
TAG_BYTES = 16
PROTOCOL = b"koinon secure sum 3"
REMEMBERED = 20_000  # agreements of one key: twice the largest cohort
_NONCE = bytes(12)  # every key seals one message, so its nonce may be a constant


class Role(Enum):
    """What a derived key is for."""

    STANDING_KEY = b"standing key"  # from a client's own entropy
    MASK_KEY = b"mask key"
    SELF_SEED = b"self seed"
    DEALING = b"dealing"
    HOLDERS = b"holders"
    SELF = b"self"  # from a seed or an agreement: what masks and what seals
    PAIR = b"pair"
    SHARE = b"share"
    CODE = b"code"
    SEEN = b"seen"  # what a code says: that somebody has seen the cohort, or agrees to the survivors
    AGREED = b"agreed"


def derive(secret: bytes, salt: bytes, role: Role, *ends: int) -> bytes:
    """Return the 32-byte key of a role between the cohort's members ``ends``; ``salt`` is 32 bytes."""
    return hkdf(secret, salt, b"|".join((PROTOCOL, role.value, *(end.to_bytes(4, "big") for end in ends))))


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """Return ``length`` bytes of HKDF with SHA-256, extract and expand (RFC 5869)."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def digest(*parts: bytes) -> bytes:
    """Return the SHA-256 of all parts, one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


class KeyPair:
    """An X25519 private key that agrees with many others, with each of them once: that is the dear part."""

    def __init__(self, private: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(private)
        self._agreed: dict[bytes, bytes] = {}

    @cached_property
    def public(self) -> bytes:
        """The 32 bytes that others agree with."""
        return self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes, owner: str) -> bytes:
        """Return the 32 bytes shared with ``owner``. Raises ProtocolError for a point of low order, which shares nothing."""
        if public in self._agreed:
            return self._agreed[public]
        if len(self._agreed) >= REMEMBERED:
            self._agreed.clear()
        try:
            found = self._agreed[public] = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise ProtocolError(
                f"The X25519 key of {owner!r} is of low order: everybody would know what is agreed with it. "
                "Leave the round and ask who signed that key."
            ) from error
        return found


def seal(key: bytes, plain: bytes, associated: bytes) -> bytes:
    """Return ``plain`` under AES-256-GCM, 16 bytes longer. A key seals one message in its life."""
    return AESGCM(key).encrypt(_NONCE, plain, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """Return what was sealed under the key for the same ``associated`` bytes, or None."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, associated)
    except InvalidTag:
        return None


def keystream(key: bytes, part: int) -> Any:
    """Return an AES-256-CTR encryptor; ``part`` numbers a key's streams, of which each has up to 64 GiB.

    The first block's counter is ``part`` in 12 bytes and 2 in 4, as GCM has it: what GCM makes of zeros is the same stream, and
    libraries expand the two at different speeds. Whichever is quicker here is taken.
    """
    return _encryptor(_quicker(), key, part)


def _counter(part: int) -> modes.Mode:
    return modes.CTR(part.to_bytes(12, "big") + (2).to_bytes(4, "big"))


def _galois(part: int) -> modes.Mode:
    return modes.GCM(part.to_bytes(12, "big"))


def _encryptor(mode: Callable[[int], modes.Mode], key: bytes, part: int) -> Any:
    cipher: Any = Cipher(algorithms.AES(key), mode(part))
    return cipher.encryptor()


@cache
def _quicker() -> Callable[[int], modes.Mode]:
    """Return the mode in which this machine expands a stream faster. It takes some milliseconds to see."""
    zeros, room, taken = bytes(1 << 18), bytearray(1 << 18), {_counter: 1.0, _galois: 1.0}
    for _ in range(4):
        for mode, best in taken.items():
            expand, began = _encryptor(mode, bytes(KEY_BYTES), 0).update_into, perf_counter()
            expand(zeros, room)
            taken[mode] = min(best, perf_counter() - began)
    return min(taken, key=lambda mode: taken[mode])


def stream(key: bytes, count: int) -> bytes:
    """Return the first ``count`` bytes of stream 0 under a key."""
    return bytes(keystream(key, 0).update(bytes(count)))
