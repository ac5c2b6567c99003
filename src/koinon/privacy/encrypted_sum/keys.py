"""The key holder's two keys: one of the lattice for what is encrypted, one of X25519 for the pads under it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from koinon.errors import ConfigurationError, FormatError, UnsupportedError
from koinon.privacy.encrypted_sum import binary
from koinon.privacy.encrypted_sum.binary import Reader, number
from koinon.privacy.encrypted_sum.lattice import PUBLIC_BYTES, SECRET_BYTES, opened
from koinon.privacy.encrypted_sum.parameters import DEGREE, MODULUS, SPECIAL

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

ENVELOPE_KEY_BYTES = 32
SMALLEST_FLOOR = 2
_LARGEST_FLOOR = 100_000
_PUBLIC, _SECRET = b"koinon key holder 1\n", b"koinon key holder's secret 1\n"
_ANY_PLAINTEXT = 20  # keys do not depend on the modulus of plaintexts


@dataclass(frozen=True)
class PublicKey:
    """What clients need of a key holder. They pin its ``fingerprint``, which covers the floor too.

    ``lattice`` has 131,072 bytes, ``envelope`` 32; ``floor`` is the fewest clients of whom a sum is decrypted.
    """

    lattice: bytes = field(repr=False)
    envelope: bytes
    floor: int

    def __post_init__(self) -> None:
        if type(self.floor) is not int or not SMALLEST_FLOOR <= self.floor <= _LARGEST_FLOOR:
            raise ConfigurationError(
                f"A key holder decrypts sums of at least {SMALLEST_FLOOR} clients, which its floor says: found {self.floor!r}."
            )

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 over the bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """Return 131 KB that everybody may have."""
        return b"".join((_PUBLIC, number(self.floor), self.envelope, binary.field(self.lattice)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the key of :meth:`to_bytes`. Raises FormatError for anything else."""
        reader = Reader(data, _PUBLIC, "A key holder's public key")
        floor, envelope = reader.number(_LARGEST_FLOOR), bytes(reader.take(ENVELOPE_KEY_BYTES))
        lattice = _checked(reader.field(PUBLIC_BYTES), PUBLIC_BYTES)
        reader.end()
        if floor < SMALLEST_FLOOR:
            raise FormatError(f"A key holder with a floor of {floor} would decrypt single updates. Do not use its key.")
        return cls(lattice, envelope, floor)


@dataclass(frozen=True)
class SecretKey:
    """Both secret halves, and the public ones. Whoever has it and a client's ciphertext has its update."""

    lattice: bytes
    envelope: bytes
    public: PublicKey

    def __repr__(self) -> str:
        return f"SecretKey(of {self.public.fingerprint.hex()[:16]})"

    @classmethod
    def generate(cls, floor: int) -> Self:
        """Return new keys from the operating system's generator. Raises UnsupportedError without ``koinon[he]``."""
        private = _x25519().generate()
        with opened(_ANY_PLAINTEXT) as lattice:
            secret, public = lattice.generate()
        raw = private.public_key().public_bytes_raw()
        return cls(secret, private.private_bytes_raw(), PublicKey(public, raw, floor))

    def to_bytes(self) -> bytes:
        """Return what the key holder keeps, readable for nobody else."""
        return b"".join((_SECRET, self.envelope, binary.field(self.lattice), self.public.to_bytes()))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the keys of :meth:`to_bytes`. Raises FormatError for anything else."""
        reader = Reader(data, _SECRET, "A key holder's secret key")
        envelope = bytes(reader.take(ENVELOPE_KEY_BYTES))
        lattice = _checked(reader.field(SECRET_BYTES), SECRET_BYTES)
        public = PublicKey.from_bytes(bytes(reader.rest()))
        derived: bytes = _x25519().from_private_bytes(envelope).public_key().public_bytes_raw()
        if derived != public.envelope:
            raise FormatError(
                "A key holder's secret key does not belong to the public key beside it. Restore it from a copy."
            )
        return cls(lattice, envelope, public)


def _checked(words: bytes, size: int) -> bytes:
    """Return polynomials that alternate between the two primes, if each number is below its own."""
    if len(words) != size:
        raise FormatError(f"A key has {len(words)} bytes of a lattice, where {size} are right: it was cut off.")
    numbers = np.frombuffer(words, "<u8").reshape(-1, 2, DEGREE)
    if not (numbers < np.array([MODULUS, SPECIAL], np.uint64)[:, None]).all():
        raise FormatError("A key has a number that is not below its modulus: it is damaged, or no key.")
    return words


def _x25519() -> type[X25519PrivateKey]:
    try:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    except ModuleNotFoundError as error:
        raise UnsupportedError("Keys need the package cryptography. Run: pip install 'koinon[he]'") from error
    return X25519PrivateKey
