"""The pad under the encryption: why no coordinator can make the key holder decrypt anything but a sum.

A client adds a one-time pad to its plaintexts before it encrypts them, and seals the pad's 32-byte seed to the key holder
(HPKE, RFC 9180). The holder takes off the pads of exactly the clients that a request names. If the ciphertext it was given is
anything but the sum of all of theirs, each once, then what is left is uniformly random: whatever a coordinator left out,
scaled, multiplied or put in twice, the pads that do not cancel hide it. This needs no trust in the lattice's key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias

from koinon.errors import ConfigurationError, FleetError, FormatError, UnsupportedError
from koinon.privacy.encrypted_sum.binary import Reader, field
from koinon.privacy.encrypted_sum.keys import PublicKey, SecretKey
from koinon.privacy.encrypted_sum.parameters import DEGREE, Parameters
from koinon.privacy.random_bits import KEY_BYTES, RandomStream
from koinon.tree import Array

Sign: TypeAlias = Callable[[bytes], bytes]
"""Signs a text with a client's identity key."""
Verify: TypeAlias = Callable[[str, bytes, bytes], bool]
"""Whether ``(client, text, signature)`` is a member of the roster and its signature."""
LONGEST_NAME = 255
MOST_HOLDERS = 16
_LONGEST_SIGNATURE = 255
_SEALED_BYTES = KEY_BYTES + 48  # an X25519 key and an authentication tag


@dataclass(frozen=True, kw_only=True)
class Round:
    """Which sum a ciphertext is for: all of it is in every signature and every seal, so nothing fits another round.

    ``keys`` are the fingerprints of the key holders: of one; or of several, first of all that of whose lattice encrypts.
    ``model`` is the SHA-256 of what everybody computed from, zeros where that is nothing: clients that were shown different
    models are in no sum together, or those that were shown one which teaches nothing would be no crowd for the others.
    """

    run: str
    number: int
    parameters: Parameters
    keys: tuple[bytes, ...]
    model: bytes = bytes(KEY_BYTES)

    def __post_init__(self) -> None:
        if not 0 < len(self.run.encode()) <= LONGEST_NAME or not 0 <= self.number < 1 << 32:
            raise ConfigurationError(
                f"A round has a run's name of at most {LONGEST_NAME} bytes and a number: found {self.run!r}, {self.number!r}."
            )
        count = len(self.keys)
        if not 0 < len(set(self.keys)) == count <= MOST_HOLDERS or any(
            len(digest) != KEY_BYTES for digest in (self.model, *self.keys)
        ):
            raise ConfigurationError(
                f"A round has the digest of a model, and the fingerprints of 1 to {MOST_HOLDERS} different key holders: found "
                f"{len(self.model)} bytes and {count}."
            )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over run, number, parameters, model and the key holders' keys."""
        parts = (self.run.encode(), b"%d" % self.number, self.parameters.digest, self.model, *self.keys)
        return hashlib.sha256(b"koinon encrypted sum 1\n" + b"".join(map(field, parts))).digest()

    def text(self, purpose: bytes, client: str, content: bytes = b"") -> bytes:
        """Return what a client signs, and what a seal is bound to."""
        return b"koinon encrypted sum 1\n" + b"".join(map(field, (purpose, self.digest, client.encode(), content)))


@dataclass(frozen=True)
class SealedPad:
    """A client's seed, sealed to the key holder, and the client's signature over that."""

    client: str
    sealed: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        """Return a few hundred bytes that say nothing to anybody but the key holder."""
        return field(self.client.encode()) + self.sealed + field(self.signature)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Return the next one. Raises FormatError."""
        client = reader.line(LONGEST_NAME)
        return cls(client, bytes(reader.take(_SEALED_BYTES)), reader.field(_LONGEST_SIGNATURE))

    def verified(self, round: Round, verify: Verify) -> bool:
        """Return whether it is signed, for this round, by a member of the roster."""
        return verify(self.client, round.text(b"signed", self.client, self.sealed), self.signature)

    def opened(self, round: Round, secret: SecretKey) -> Pad:
        """Return the pad. Raises FleetError where it was sealed to another key, or for another client or round."""
        suite, x25519 = _hpke()
        from cryptography.exceptions import InvalidTag

        private = x25519.X25519PrivateKey.from_private_bytes(secret.envelope)
        try:
            return Pad(suite.decrypt(self.sealed, private, info=round.text(b"seal", self.client)))
        except InvalidTag as error:
            raise FleetError(
                f"The pad of {self.client} does not open: it was sealed to another key holder, or for another round."
            ) from error


class Pad:
    """One client's pad in one round: AES-256 in counter mode."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise FormatError(f"A pad's seed has {KEY_BYTES} bytes: found {len(seed)}.")
        self._seed = seed

    @classmethod
    def fresh(cls) -> Self:
        """Return a pad nobody has used: one for each encryption, a repeated one included."""
        return cls(os.urandom(KEY_BYTES))

    def plaintexts(self) -> Iterator[Array]:
        """Yield what is added to each plaintext, the first one first: uint64 ``[DEGREE]``, of which the low bits count."""
        stream = RandomStream(self._seed, 0)
        while True:
            yield stream.words(DEGREE)

    def sealed(self, round: Round, client: str, public: PublicKey, sign: Sign) -> SealedPad:
        """Return the seed for the key holder alone, signed."""
        suite, x25519 = _hpke()
        recipient = x25519.X25519PublicKey.from_public_bytes(public.envelope)
        try:
            sealed = suite.encrypt(self._seed, recipient, info=round.text(b"seal", client))
        except ValueError as error:
            raise FormatError(f"The key holder's key for pads is no key ({error}). Do not use it.") from error
        return SealedPad(client, sealed, sign(round.text(b"signed", client, sealed)))


def require() -> None:
    """Raise UnsupportedError where ``koinon[he]`` is not installed."""
    _hpke()


def _hpke() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import hpke
        from cryptography.hazmat.primitives.asymmetric import x25519
    except ImportError as error:
        raise UnsupportedError(
            "Pads are sealed by the HPKE of the package cryptography from 47 on. Run: pip install 'koinon[he]'"
        ) from error
    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM), x25519
