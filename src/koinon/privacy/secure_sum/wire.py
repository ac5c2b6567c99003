"""The messages' bytes: fields of known length, little of it, and no length believed before it has been compared.

Each begins with the protocol and its version, the kind, and the digest it belongs to: of the terms, or of the cohort.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from koinon.errors import FormatError
from koinon.privacy.secure_sum.primitives import digest

MAGIC = b"kss\x03"
DIGEST_BYTES = 32
LETTER_BYTES = 48 << 10
"""What one message of the fleet's mailbox may hold; see :func:`pieces`."""
_LARGEST_PIECES = 1 << 10


class Kind(IntEnum):
    """The messages, in the order in which they are sent."""

    KEYS = 1  # client: its public keys, signed
    COHORT = 2  # coordinator, to all: everybody's keys
    SHARES = 3  # client: sealed shares for its neighbours, its code on the cohort for the others
    DELIVERY = 4  # coordinator, to each: who has shared, and the shares for it
    SURVIVORS = 5  # coordinator, to all: whose vectors it has
    AGREEMENT = 6  # client, to each survivor: its code on the survivors
    REQUEST = 7  # coordinator, to each survivor: the survivors with the codes for it
    UNMASKING = 8  # client: the shares it holds
    PIECE = 9  # a part of a message too long for one letter
    STATE = 10  # what a client keeps
    TERMS = 11  # what both sides have from the app and the task


class Reader:
    """Takes bytes apart from the front. Every method raises FormatError where too few are left."""

    def __init__(self, body: bytes, kind: Kind) -> None:
        self._body, self._at, self._kind = body, 0, kind
        found = self.take(len(MAGIC) + 1)
        if found != MAGIC + bytes([kind]):
            raise FormatError(
                f"A message {kind.name.lower()} of koinon's secure sum, version {MAGIC[-1]}, was expected; this begins "
                f"with {found.hex()}. Use the same release of koinon on both sides."
            )

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if not 0 <= count <= len(self._body) - self._at:
            raise FormatError(
                f"A message of a secure sum is cut short: {count:,} bytes were announced and "
                f"{len(self._body) - self._at:,} are left. Send it again whole."
            )
        self._at += count
        return self._body[self._at - count : self._at]

    def number(self, largest: int) -> int:
        """Return the next unsigned 32-bit number, at most ``largest``."""
        found = int.from_bytes(self.take(4), "big")
        if found > largest:
            raise FormatError(f"A message of a secure sum announces {found:,} where {largest:,} is the most.")
        return found

    def members(self, cohort: int) -> frozenset[int]:
        """Return a set of a cohort's members, one bit each."""
        bits = int.from_bytes(self.take((cohort + 7) // 8), "little")
        if bits >> cohort:
            raise FormatError(f"A set names members beyond the {cohort:,} of the cohort.")
        return frozenset(i for i, bit in enumerate(reversed(f"{bits:b}")) if bit == "1")

    def texts(self, count: int) -> tuple[str, ...]:
        """Return ``count`` names of 1 to 255 bytes of UTF-8."""
        try:
            found = tuple(self.take(self.take(1)[0]).decode() for _ in range(count))
        except UnicodeDecodeError as error:
            raise FormatError("A name is not UTF-8.") from error
        if not all(found):
            raise FormatError("A name is empty.")
        return found

    def end(self) -> None:
        """Raise FormatError if anything is left."""
        if self._at != len(self._body):
            raise FormatError(f"A message of a secure sum has {len(self._body) - self._at:,} bytes too many.")


def number(value: int) -> bytes:
    """Return an unsigned 32-bit number."""
    return value.to_bytes(4, "big")


def members(chosen: Iterable[int], cohort: int) -> bytes:
    """Return a set of a cohort's members, one bit each."""
    found = bytearray((cohort + 7) // 8)
    for i in chosen:
        found[i // 8] |= 1 << i % 8
    return bytes(found)


def texts(names: Iterable[str]) -> bytes:
    """Return names, each with its length in one byte. Raises FormatError for one of none or more than 255 bytes."""
    raw = [name.encode() for name in names]
    for name in raw:
        if not 0 < len(name) < 256:
            raise FormatError(f"A name has 1 to 255 bytes of UTF-8; found {len(name)}.")
    return b"".join(bytes([len(name)]) + name for name in raw)


def header(kind: Kind) -> bytes:
    """Return how a message of a kind begins."""
    return MAGIC + bytes([kind])


def kind_of(body: bytes) -> Kind:
    """Return the kind of a message. Raises FormatError."""
    try:
        return Kind(body[len(MAGIC)]) if body.startswith(MAGIC) else Kind(0)
    except (IndexError, ValueError) as error:
        raise FormatError(
            f"{body[:8].hex()}... begins no message of koinon's secure sum, version {MAGIC[-1]}."
        ) from error


def pieces(body: bytes, largest: int = LETTER_BYTES) -> tuple[bytes, ...]:
    """Return a message as letters of at most ``largest`` bytes, above 64: itself if it is short enough.

    What a client says in a round of up to 2,100 fits into one letter of 48 KiB; of 10,000, its shares and codes take 4.
    """
    if len(body) <= largest:
        return (body,)
    room = largest - (len(MAGIC) + 1 + DIGEST_BYTES + 8)
    parts = [body[at : at + room] for at in range(0, len(body), room)]
    start = header(Kind.PIECE) + digest(body)
    return tuple(start + number(i) + number(len(parts)) + part for i, part in enumerate(parts))


def joined(letters: Sequence[bytes]) -> bytes | None:
    """Return the message of :func:`pieces`, in whatever order they have come; None while some are missing."""
    if len(letters) == 1 and kind_of(letters[0]) is not Kind.PIECE:
        return letters[0]
    found: dict[int, bytes] = {}
    wholes = set()
    for letter in letters:
        reader = Reader(letter, Kind.PIECE)
        whole, place, count = reader.take(DIGEST_BYTES), reader.number(_LARGEST_PIECES), reader.number(_LARGEST_PIECES)
        wholes.add((whole, count))
        found[place] = letter[len(MAGIC) + 1 + DIGEST_BYTES + 8 :]
    if len(wholes) != 1:
        raise FormatError("Pieces of different messages do not make one.")
    [(whole, count)] = wholes
    if found.keys() != set(range(count)):
        return None
    body = b"".join(found[place] for place in range(count))
    if digest(body) != whole:
        raise FormatError("The pieces of a message do not have its digest. Send it again.")
    return body
