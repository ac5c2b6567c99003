"""A run's clients as a dataset without examples: what the coordinator knows of data that it never sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from koinon.errors import FleetError
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Member:
    """A client of a run."""

    client: str  # identifier
    name: str  # the party's own
    train: int  # examples to train on
    held_out: int  # examples to judge on


@dataclass(frozen=True)
class Fared:
    """How a member has fared."""

    round: int = 0  # the last committed round to which it sent an update; 0: none
    accepted: bool = False  # whether that was in the sum
    rounds_done: int = 0  # in whose sum its update was

    def after(self, round: int, *, accepted: bool) -> Fared:
        """Return what it becomes with another round."""
        return Fared(round, accepted, self.rounds_done + accepted)


class Members:
    """Everybody who ever joined a run, in that order. Implements Dataset; it only grows."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._members: list[Member] = []
        self._positions: dict[str, int] = {}
        for member in members:
            self.add(member)

    def add(self, member: Member) -> int:
        """Keep a member, or what has become of one; return its position."""
        position = self._positions.setdefault(member.client, len(self._members))
        self._members[position : position + 1] = [member]
        return position

    def position(self, client: str) -> int:
        """Return a client's position. Raises FleetError for one who has not joined."""
        if client not in self._positions:
            raise FleetError(f"Client {client} has not joined this run. Join it first.")
        return self._positions[client]

    def called(self, name: str) -> list[str]:
        """Return the clients that bear a party's name, the newest last."""
        return [member.client for member in self._members if member.name == name]

    def __contains__(self, client: str) -> bool:
        return client in self._positions

    def __getitem__(self, position: int) -> Member:
        return self._members[position]

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members))

    def __len__(self) -> int:
        return len(self._members)

    @property
    def names(self) -> Sequence[str]:
        """The parties' names."""
        return [member.name for member in self._members]

    @property
    def has_held_out(self) -> bool:
        """Whether any member judges."""
        return any(member.held_out for member in self._members)

    @property
    def x(self) -> Tree:
        """Refuse: examples stay with their clients."""
        raise FleetError("The coordinator has no client's examples: they stay in their places.")

    @property
    def y(self) -> Tree:
        """Refuse: labels stay with their clients."""
        return self.x

    def span(self, clients: Array, *, held_out: bool) -> tuple[Array, Array]:
        """Return zeros, and how many examples each member said it holds."""
        chosen = [self._members[i] for i in np.asarray(clients).tolist()]
        counts = np.array([member.held_out if held_out else member.train for member in chosen], np.int64)
        return np.zeros_like(counts), counts

    def order(self) -> Array:
        """Refuse: rows stay with their clients."""
        return self.x

    def fingerprint(self) -> str:
        """Return what stands for data that nobody sees."""
        return "held by the clients"
