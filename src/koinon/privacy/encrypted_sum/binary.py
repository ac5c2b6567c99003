"""Bounded fields of messages: every length is compared with what is there and with a limit before anything is allocated."""

from __future__ import annotations

import struct

from koinon.errors import FormatError

_LENGTH = struct.Struct("<I")


class Reader:
    """Takes one field after the other from bytes of a stranger. Raises FormatError; ``what`` names the message."""

    def __init__(self, data: bytes | bytearray | memoryview, mark: bytes, what: str) -> None:
        self._rest, self._what = memoryview(data), what
        if (found := bytes(self._rest[: len(mark)])) != mark:
            raise FormatError(
                f"{what} begins with {mark!r}, and this with {found!r}: it is another file, or another version."
            )
        self._rest = self._rest[len(mark) :]

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes, without a copy."""
        if not 0 <= count <= len(self._rest):
            raise FormatError(f"{self._what} has {len(self._rest)} bytes where {count} were announced: it was cut off.")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def number(self, most: int) -> int:
        """Return a whole number up to ``most``."""
        found = int(_LENGTH.unpack(self.take(_LENGTH.size))[0])
        if found > most:
            raise FormatError(f"{self._what} says {found} where at most {most} are allowed.")
        return found

    def field(self, most: int) -> bytes:
        """Return a field that is at most ``most`` bytes long."""
        return bytes(self.take(self.number(most)))

    def line(self, most: int) -> str:
        """Return a field that is one line of UTF-8."""
        try:
            return self.field(most).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._what} has a name that is not UTF-8.") from error

    def rest(self) -> memoryview:
        """Return all that is left."""
        return self.take(len(self._rest))

    def end(self) -> None:
        """Refuse bytes that nobody announced."""
        if len(self._rest):
            raise FormatError(f"{self._what} has {len(self._rest)} bytes too many.")


def number(value: int) -> bytes:
    """Return what :meth:`Reader.number` reads."""
    return _LENGTH.pack(value)


def field(value: bytes) -> bytes:
    """Return what :meth:`Reader.field` reads."""
    return number(len(value)) + value
