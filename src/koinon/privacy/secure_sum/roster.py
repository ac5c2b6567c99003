"""Who may take part, signed by a key that the coordinator does not hold.

Without it a coordinator can invent members until a cohort is one client and its own inventions, and then it knows every
mask. The record is text that a person can read; its digest is in everything that is signed in a secure sum.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from koinon.errors import ConfigurationError, FormatError, ProtocolError

_FIRST = "koinon roster 1"
_KEY = re.compile(r"(?:ed25519:[A-Za-z0-9_-]{43}|p256:[A-Za-z0-9_-]{87})")
_SIGNATURE = re.compile(r"signature ([A-Za-z0-9_-]{86})")
_LARGEST = 4 << 20  # bytes: about 30,000 members


@dataclass(frozen=True, kw_only=True)
class Roster:
    """The members of a federation, each name with its public key: ``ed25519:`` or ``p256:`` and base64url.

    ``serial`` grows with every change, so of two rosters everybody knows the later one. Names are single lines of
    printable characters; no name and no key is there twice.
    """

    federation: str
    serial: int = 1
    members: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.federation, *self.members):
            if not (0 < len(name.encode()) < 256 and name.isprintable() and name == name.strip()):
                raise ConfigurationError(
                    f"A name is one line of 1 to 255 bytes without spaces round it; found {name!r}."
                )
        for name, key in self.members.items():
            if not (_KEY.fullmatch(key) and _encoded(_decoded(key.partition(":")[2])) == key.partition(":")[2]):
                raise ConfigurationError(
                    f"The key of {name!r} must be ed25519: or p256: and its bytes in base64url; found {key!r}."
                )
        if len(set(self.members.values())) != len(self.members):
            raise ConfigurationError("Two members have one key. Each needs a key of its own, made by itself.")
        if not (isinstance(self.serial, int) and 1 <= self.serial < 2**63):
            raise ConfigurationError(f"A serial is a whole number from 1; found {self.serial!r}.")

    def add(self, name: str, key: str) -> Roster:
        """Return the next roster, with one more member. Raises ConfigurationError for a name or key that is there."""
        if name in self.members:
            raise ConfigurationError(f"{name!r} is a member already. Remove it first if its key has changed.")
        return Roster(federation=self.federation, serial=self.serial + 1, members={**self.members, name: key})

    def remove(self, name: str) -> Roster:
        """Return the next roster, without a member. Raises ConfigurationError if it is none."""
        if name not in self.members:
            raise ConfigurationError(f"{name!r} is no member. Members are: {', '.join(sorted(self.members))}.")
        left = {other: key for other, key in self.members.items() if other != name}
        return Roster(federation=self.federation, serial=self.serial + 1, members=left)

    def text(self) -> str:
        """Return what is signed: a line each, members in the order of their names."""
        head = [_FIRST, f"federation {self.federation}", f"serial {self.serial}"]
        lines = [f"member {self.members[name]} {name}" for name in sorted(self.members)]
        return "\n".join([*head, *lines]) + "\n"

    def digest(self) -> bytes:
        """Return the SHA-256 of the text: what terms and floors name a roster by."""
        return hashlib.sha256(self.text().encode()).digest()

    def signed(self, sign: Callable[[bytes], bytes]) -> bytes:
        """Return the file of the roster: its text and a last line with the signature (64 bytes) of who answers for it."""
        text = self.text().encode()
        return text + f"signature {_encoded(sign(text))}\n".encode()

    @classmethod
    def read(cls, raw: bytes, verify: Callable[[bytes, bytes], bool], *, after: int = 0) -> Roster:
        """Return the roster of a file that ``verify(text, signature)`` accepts and whose serial is above ``after``.

        Raises FormatError for what is no roster, ProtocolError for one that somebody else has signed or an earlier one.
        """
        text, _, last = raw[:-1].rpartition(b"\n")
        text += b"\n"
        found = _SIGNATURE.fullmatch(last.decode("ascii", "replace"))
        if len(raw) > _LARGEST or not raw.endswith(b"\n") or not found:
            raise FormatError("This is no signed roster. Ask whoever signs it for the file, and do not edit it.")
        if not verify(text, _decoded(found[1])):
            raise ProtocolError(
                "The roster's signature is not that of the key you trust. Compare the key's fingerprint with its owner, and "
                "get the roster again."
            )
        roster = cls._of(text)
        if roster.serial <= after:
            raise ProtocolError(
                f"Serial {after} of this roster is known, and this is {roster.serial}: an old one, with members that may have "
                "left. Get the latest."
            )
        return roster

    @classmethod
    def parse(cls, raw: bytes) -> Roster:
        """Return the roster of a file whether it is signed or not: nothing is known of who wrote it. Raises FormatError."""
        if len(raw) > _LARGEST:
            raise FormatError(f"A roster has at most {_LARGEST:,} bytes; found {len(raw):,}.")
        text, _, last = raw[:-1].rpartition(b"\n")
        return cls._of(text + b"\n" if last.startswith(b"signature ") else raw)

    @classmethod
    def _of(cls, text: bytes) -> Roster:
        try:
            first, federation, serial, *lines = text.decode().removesuffix("\n").split("\n")
            members = dict(line.removeprefix("member ").split(" ", 1)[::-1] for line in lines)
            number = int(serial.removeprefix("serial "))
            roster = cls(federation=federation.removeprefix("federation "), serial=number, members=members)
        except (ValueError, ConfigurationError) as error:
            raise FormatError(f"This is no roster of koinon, version 1 ({error}).") from error
        if roster.text().encode() != text or first != _FIRST:
            raise FormatError("The roster is not written as koinon, version 1, writes one. Do not edit the file.")
        return roster


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
