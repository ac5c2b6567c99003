"""What a client says of an upload before it sends it."""

from __future__ import annotations

from dataclasses import dataclass

from koinon.errors import FormatError
from koinon.fleet.wire.signatures import root
from koinon.fleet.wire.texts import is_digest


@dataclass(frozen=True)
class Claim:
    """What a client says it will upload."""

    size: int
    chunk_bytes: int
    digests: tuple[str, ...]  # SHA-256 of every chunk, in hex

    def __post_init__(self) -> None:
        if self.size < 1 or self.chunk_bytes < 1:
            raise FormatError(f"An upload of {self.size:,} bytes in chunks of {self.chunk_bytes:,} holds nothing.")
        if len(self.digests) != -(-self.size // self.chunk_bytes):
            raise FormatError(
                f"{self.size:,} bytes in chunks of {self.chunk_bytes:,} need {-(-self.size // self.chunk_bytes):,} "
                f"digests; found {len(self.digests):,}."
            )
        if not all(map(is_digest, self.digests)):
            raise FormatError("A chunk's digest is a SHA-256 of 64 lower-case hex digits.")

    @property
    def root(self) -> str:
        """What is signed of the content."""
        return root(list(self.digests))

    def length(self, chunk: int) -> int:
        """Return the bytes of a chunk."""
        return min(self.chunk_bytes, self.size - chunk * self.chunk_bytes)
