"""What is counted of clients while this process runs: shown, and never decided upon."""

from __future__ import annotations

from collections.abc import Callable


class Figures:
    """One client."""

    def __init__(self, heard: float) -> None:
        self.heard = heard
        self.bytes_received = self.bytes_sent = 0
        self.upload_seconds = 0.0
        self.last_round_seconds: float | None = None
        self.last_error: str | None = None
        self.asked_at: float | None = None


class Book(dict[str, Figures]):
    """Every client that was heard of or asked since this process began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def __missing__(self, client: str) -> Figures:
        return self.setdefault(client, Figures(self._clock()))

    def heard(self, client: str) -> None:
        """Note that a client has spoken."""
        self[client].heard = self._clock()

    def asked(self, client: str) -> None:
        """Note that a client has something to do."""
        self[client].asked_at = self._clock()

    def answered(self, client: str) -> None:
        """Note that a client's update is here."""
        own = self[client]
        self.heard(client)
        if own.asked_at is not None:
            own.last_round_seconds = self._clock() - own.asked_at

    def failed(self, client: str, reason: str) -> None:
        """Note what went wrong."""
        self[client].last_error = reason
