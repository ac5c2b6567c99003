"""Who is told what: a number for each client that grows with all that is new for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence


class Notices:
    """The numbers of one run's clients. Whoever holds it sees to the order of calls."""

    def __init__(self) -> None:
        self._serials: dict[str, int] = {}
        self._first = secrets.randbits(40)  # an earlier process' numbers mean nothing to this one
        self._wake: Callable[[Sequence[str]], None] = lambda clients: None
        self._told: set[str] = set()  # who has heard that the run is over

    def on_change(self, wake: Callable[[Sequence[str]], None]) -> None:
        """Call ``wake`` with the clients that have something new, from any thread."""
        self._wake = wake

    def serial(self, client: str) -> int:
        """Return a client's number."""
        return self._serials.setdefault(client, self._first)

    def tell(self, clients: Sequence[str]) -> None:
        """Let clients know that there is something new for them."""
        for client in clients:
            self._serials[client] = self.serial(client) + 1
        self._wake(clients)

    def tell_all(self) -> None:
        """Let every client know that has ever asked."""
        self.tell(list(self._serials))

    def stir(self) -> None:
        """Let those look who watch the run and are no clients of it."""
        self._wake(())

    def has_heard(self, client: str, since: int | None) -> None:
        """Note that the run is over for a client that asks again: it has the result and all else it wants."""
        if since == self.serial(client):
            self._told.add(client)

    def all_heard(self, clients: Iterable[str]) -> bool:
        """Return whether the run is over for all of these."""
        return self._told.issuperset(clients)
