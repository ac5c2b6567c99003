"""What the secure sum's messages say. Each reads itself from bytes with every length compared first."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from koinon.errors import FormatError
from koinon.privacy.secure_sum.neighbours import LARGEST_COHORT, Degree
from koinon.privacy.secure_sum.primitives import KEY_BYTES, PROTOCOL, TAG_BYTES, digest
from koinon.privacy.secure_sum.shamir import BYTES as SHARE_BYTES
from koinon.privacy.secure_sum.wire import DIGEST_BYTES, Kind, Reader, header, members, number, texts

Sign: TypeAlias = Callable[[bytes], bytes]
"""Returns a party's own signature of 64 bytes over a text, by the key it is enrolled with."""
Verify: TypeAlias = Callable[[str, bytes, bytes], bool]
"""Says whether a signature over a text is that of the party named first: ``verify(party, text, signature)``."""
SIGNATURE_BYTES = 64
CODE_BYTES = 16
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES
_PUBLIC_BYTES = 3 * KEY_BYTES
ROUNDS = 64
"""How many rounds a standing key serves at most: those of one number after whole division by this.

So long can who comes by it speak for its owner, and to its owner for others; it opens nothing of before.
"""


@dataclass(frozen=True)
class PublicKeys:
    """A client's keys: the one that stands, for its masks X25519 of one attempt, and the SHA-256 of its own mask's seed."""

    standing: bytes
    mask: bytes
    seed: bytes

    def __bytes__(self) -> bytes:
        """Return the 96 bytes."""
        return self.standing + self.mask + self.seed

    @classmethod
    def of(cls, raw: bytes) -> PublicKeys:
        """Return the keys of 96 bytes."""
        return cls(raw[:KEY_BYTES], raw[KEY_BYTES : 2 * KEY_BYTES], raw[2 * KEY_BYTES :])


@dataclass(frozen=True)
class SignedKeys:
    """A client's keys, and its signature on the one that stands."""

    keys: PublicKeys
    signature: bytes

    def to_bytes(self, terms: bytes) -> bytes:
        """Return the message; ``terms`` is the digest of the terms."""
        return header(Kind.KEYS) + terms + bytes(self.keys) + self.signature

    @classmethod
    def read(cls, body: bytes, terms: bytes) -> SignedKeys:
        """Return the keys of a message for these terms. Raises FormatError."""
        reader = _reader(body, Kind.KEYS, terms)
        found = cls(PublicKeys.of(reader.take(_PUBLIC_BYTES)), reader.take(SIGNATURE_BYTES))
        reader.end()
        return found


def standing_text(run: str, party: str, round: int, key: bytes) -> bytes:
    """Return what a client signs: the protocol, the run, its name, which 64 rounds ``round`` is of, and the key that stands for it.

    A round itself, its terms and the keys of an attempt are bound by what is sealed and coded under such keys: that hangs on the
    cohort's transcript.
    """
    return PROTOCOL + b" standing key\n" + texts([run, party]) + number(round // ROUNDS) + key


@dataclass(frozen=True)
class Cohort:
    """Everybody's keys, in the order of the names. A member is its place in that order."""

    names: tuple[str, ...]
    signed: tuple[SignedKeys, ...]
    degree: Degree
    terms: bytes

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.names)

    @cached_property
    def body(self) -> bytes:
        """The message."""
        sizes = number(len(self)) + number(self.degree.neighbours) + number(self.degree.threshold)
        keys = b"".join(bytes(each.keys) + each.signature for each in self.signed)
        return header(Kind.COHORT) + self.terms + sizes + keys + texts(self.names)

    @cached_property
    def transcript(self) -> bytes:
        """The digest of all that was said before: the salt of every key that is derived from here on."""
        return digest(PROTOCOL, self.body)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Each name's place."""
        return {name: i for i, name in enumerate(self.names)}

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree.neighbours == len(self)

    @classmethod
    def read(cls, body: bytes, terms: bytes) -> Cohort:
        """Return the cohort of a message for these terms. Raises FormatError."""
        reader = _reader(body, Kind.COHORT, terms)
        count = reader.number(LARGEST_COHORT)
        degree = Degree(reader.number(count), reader.number(count))
        each = _PUBLIC_BYTES + SIGNATURE_BYTES
        block = reader.take(count * each)
        signed = tuple(
            SignedKeys(PublicKeys.of(block[at : at + _PUBLIC_BYTES]), block[at + _PUBLIC_BYTES : at + each])
            for at in range(0, len(block), each)
        )
        names = reader.texts(count)
        reader.end()
        if list(names) != sorted(set(names)):
            raise FormatError("The names of a cohort are not in order, or one is there twice.")
        return cls(names, signed, degree, terms)


@dataclass(frozen=True)
class Shares:
    """A client's sealed shares by the member each is for, and its code on the cohort for every member, one after the other.

    Who gets a share needs no code, and in the complete graph everybody does: then there are none.
    """

    sealed: Mapping[int, bytes]
    codes: bytes = b""

    def to_bytes(self, cohort: Cohort) -> bytes:
        """Return the message."""
        return header(Kind.SHARES) + cohort.transcript + _entries(self.sealed) + self.codes

    def code(self, member: int) -> bytes:
        """Return the code for a member."""
        return self.codes[member * CODE_BYTES : (member + 1) * CODE_BYTES]

    @classmethod
    def read(cls, body: bytes, cohort: Cohort) -> Shares:
        """Return the shares of a message. Raises FormatError."""
        reader = _reader(body, Kind.SHARES, cohort.transcript)
        sealed = _read_entries(reader, len(cohort), SEALED_BYTES)
        found = cls(sealed, b"" if cohort.complete else reader.take(len(cohort) * CODE_BYTES))
        reader.end()
        return found


@dataclass(frozen=True)
class Delivery:
    """Who has shared; for one member the sealed shares by sender, and the codes of those who hold its shares and sent none."""

    sharers: frozenset[int]
    sealed: Mapping[int, bytes]
    codes: Mapping[int, bytes]

    def to_bytes(self, cohort: Cohort) -> bytes:
        """Return the message."""
        start = header(Kind.DELIVERY) + cohort.transcript + members(self.sharers, len(cohort))
        return start + _entries(self.sealed) + _entries(self.codes)

    @classmethod
    def read(cls, body: bytes, cohort: Cohort) -> Delivery:
        """Return what a message delivers. Raises FormatError."""
        reader, count = _reader(body, Kind.DELIVERY, cohort.transcript), len(cohort)
        found = cls(
            reader.members(count), _read_entries(reader, count, SEALED_BYTES), _read_entries(reader, count, CODE_BYTES)
        )
        reader.end()
        return found


@dataclass(frozen=True)
class Survivors:
    """Who has shared and given its vector, and who has shared and not."""

    active: frozenset[int]
    dead: frozenset[int]

    def sets(self, cohort: Cohort) -> bytes:
        """Return the two sets."""
        return members(self.active, len(cohort)) + members(self.dead, len(cohort))

    def to_bytes(self, cohort: Cohort) -> bytes:
        """Return the message."""
        return header(Kind.SURVIVORS) + cohort.transcript + self.sets(cohort)

    def text(self, cohort: Cohort) -> bytes:
        """Return what every survivor tells every other under a code."""
        return PROTOCOL + b" survivors\n" + cohort.transcript + self.sets(cohort)

    @classmethod
    def read(cls, body: bytes, cohort: Cohort) -> Survivors:
        """Return the survivors of a message. Raises FormatError."""
        reader = _reader(body, Kind.SURVIVORS, cohort.transcript)
        found = cls(reader.members(len(cohort)), reader.members(len(cohort)))
        reader.end()
        return found


def agreement_message(cohort: Cohort, codes: bytes) -> bytes:
    """Return a client's message with its codes on the survivors, 16 bytes for each of them in their order, itself too."""
    return header(Kind.AGREEMENT) + cohort.transcript + codes


def read_agreement(body: bytes, cohort: Cohort, survivors: int) -> bytes:
    """Return the codes of a message, 16 bytes for each survivor. Raises FormatError."""
    reader = _reader(body, Kind.AGREEMENT, cohort.transcript)
    codes = reader.take(survivors * CODE_BYTES)
    reader.end()
    return codes


@dataclass(frozen=True)
class Request:
    """The survivors, and the codes for one of them by the member that agrees."""

    survivors: Survivors
    codes: Mapping[int, bytes]

    def to_bytes(self, cohort: Cohort) -> bytes:
        """Return the message."""
        agreed = members(self.codes, len(cohort)) + b"".join(self.codes[i] for i in sorted(self.codes))
        return header(Kind.REQUEST) + cohort.transcript + self.survivors.sets(cohort) + agreed

    @classmethod
    def read(cls, body: bytes, cohort: Cohort) -> Request:
        """Return the request of a message. Raises FormatError."""
        reader = _reader(body, Kind.REQUEST, cohort.transcript)
        survivors = Survivors(reader.members(len(cohort)), reader.members(len(cohort)))
        agreed = sorted(reader.members(len(cohort)))
        block = reader.take(len(agreed) * CODE_BYTES)
        reader.end()
        each = [block[at : at + CODE_BYTES] for at in range(0, len(block), CODE_BYTES)]
        return cls(survivors, dict(zip(agreed, each, strict=True)))


def unmasking_message(transcript: bytes, shares: Mapping[int, bytes]) -> bytes:
    """Return a client's message of opened shares, by the member whose secret they are of."""
    return header(Kind.UNMASKING) + transcript + _entries(shares)


def read_unmasking(body: bytes, cohort: Cohort) -> dict[int, bytes]:
    """Return the shares of a message by the member whose secret they are of. Raises FormatError."""
    reader = _reader(body, Kind.UNMASKING, cohort.transcript)
    found = _read_entries(reader, len(cohort), SHARE_BYTES)
    reader.end()
    return found


def _reader(body: bytes, kind: Kind, belongs_to: bytes) -> Reader:
    reader = Reader(body, kind)
    found = reader.take(DIGEST_BYTES)
    if found != belongs_to:
        raise FormatError(
            f"A message {kind.name.lower()} belongs to {found.hex()[:16]}, and this sum is {belongs_to.hex()[:16]}: other "
            "terms, another roster, another round, or an attempt that is over."
        )
    return reader


def _entries(values: Mapping[int, bytes]) -> bytes:
    return number(len(values)) + b"".join(number(i) + values[i] for i in sorted(values))


def _read_entries(reader: Reader, cohort: int, each: int) -> dict[int, bytes]:
    count = reader.number(cohort)
    entries = list(struct.iter_unpack(f">I{each}s", reader.take(count * (4 + each))))
    places = [place for place, _ in entries]
    if places != sorted(set(places)) or (places and places[-1] >= cohort):
        raise FormatError("The entries of a message are not in order, one is there twice, or is of no member.")
    return dict(entries)
