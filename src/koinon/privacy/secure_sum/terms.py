"""What both sides have before the first message, and what a client insists on whatever the coordinator says."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from koinon.errors import ConfigurationError, ProtocolError
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.neighbours import Assumptions, Degree, holds
from koinon.privacy.secure_sum.primitives import digest
from koinon.privacy.secure_sum.wire import DIGEST_BYTES, Kind, header, number, texts

NO_ROSTER = bytes(DIGEST_BYTES)
"""Stands for a cohort that nobody but the coordinator has chosen: it protects against a curious one only."""
NO_MODEL = bytes(DIGEST_BYTES)
"""Stands for a model that nobody was sent, as in a simulation."""
NO_APP = bytes(DIGEST_BYTES)
"""Stands for an app that is not agreed on beforehand: there is only one."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """One attempt at one sum: the same on both sides, from the app and the task, never negotiated.

    ``round`` counts from 1, ``attempt`` from 0. ``roster`` is the digest of the list of who may take part, ``noise`` the
    multiplier of the noise that clients add themselves, 0 where they add none. ``model`` is the digest of what was sent to
    be trained or judged: a coordinator that sends one client another model than the rest, say one whose updates are all 0, would
    read that client's update in the sum (Pasquini et al., "Eluding Secure Aggregation in Federated Learning via Model
    Inconsistency", CCS 2022). ``app`` is the digest of what is done with it, for the same reason.
    """

    run: str
    round: int
    layout: Layout
    attempt: int = 0
    roster: bytes = NO_ROSTER
    model: bytes = NO_MODEL
    app: bytes = NO_APP
    assumptions: Assumptions = field(default_factory=Assumptions)
    noise: float = 0.0

    def __post_init__(self) -> None:
        whole = 1 <= self.round < 2**32 and 0 <= self.attempt < 2**32
        if not (self.run and whole and len(self.roster) == len(self.model) == len(self.app) == DIGEST_BYTES):
            raise ConfigurationError(
                f"A run's name, a round from 1, an attempt from 0 and digests of a roster, a model and an app are needed; found {self!r}."
            )

    def digest(self) -> bytes:
        """Return the 32 bytes that every message of this attempt hangs on."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        layout, assumptions = self.layout, self.assumptions
        numbers = (self.round, self.attempt, layout.numbers, layout.sums, layout.bits, layout.scale + 2**16)
        figures = (assumptions.corrupt, assumptions.dropped, assumptions.security, assumptions.correctness)
        return digest(
            header(Kind.TERMS),
            texts([self.run]),
            b"".join(number(value) for value in (*numbers, layout.cohort, layout.largest_weight)),
            texts(repr(float(value)) for value in figures),
            self.roster,
            self.model,
            self.app,
            texts([repr(float(self.noise))]) if self.noise else b"",
        )


@dataclass(frozen=True, kw_only=True)
class Floors:
    """A client's own limits. It refuses whatever lies below them.

    ``corrupt`` is the least share of colluding members that a graph has to withstand, ``security`` with how many bits;
    ``roster`` is the digest of the list of members that this client trusts, None if it has none.
    """

    minimum_cohort: int = 3
    largest_weight: int = 2**24 - 1
    corrupt: float = 0.2
    security: int = 40
    roster: bytes | None = None

    def __post_init__(self) -> None:
        Assumptions(corrupt=self.corrupt, security=self.security)
        if self.minimum_cohort < 3:
            raise ConfigurationError(
                f"Floors.minimum_cohort is at least 3: of two, each knows the other's update. Found {self.minimum_cohort!r}."
            )

    def check_terms(self, terms: Terms) -> None:
        """Raise ProtocolError for terms that this client does not take part under."""
        if self.roster is not None and terms.roster != self.roster:
            raise ProtocolError(
                f"The roster {terms.roster.hex()[:16]} was asked for, and this client trusts {self.roster.hex()[:16]}. "
                "Get the list from who signs it, compare the two, and take part when they are the same."
            )
        if terms.noise and terms.assumptions.corrupt < self.corrupt:
            raise ProtocolError(
                f"The noise of this round is made for {terms.assumptions.corrupt:.0%} of corrupt members, and this client reckons with "
                f"{self.corrupt:.0%}: what the honest ones add would be too little. Agree on more, or on a lower floor."
            )
        if terms.layout.largest_weight > self.largest_weight:
            raise ProtocolError(
                f"The round allows weights up to {terms.layout.largest_weight:,}, this client {self.largest_weight:,} at "
                "most: with a large weight one client is the whole sum. Agree on a smaller one."
            )

    def check_cohort(self, size: int, degree: Degree) -> None:
        """Raise ProtocolError for a cohort that is too small, or a graph that protects less than this client wants."""
        if size < self.minimum_cohort:
            raise ProtocolError(
                f"The cohort has {size:,} members, and this client's floor is {self.minimum_cohort:,}. "
                "It stays out of this round."
            )
        if not holds(size, degree, Assumptions(corrupt=self.corrupt, security=self.security)):
            raise ProtocolError(
                f"{degree.threshold} of {degree.neighbours} neighbours could open this client's secrets in a cohort of "
                f"{size:,}. That does not withstand {self.corrupt:.0%} of corrupt members with {self.security} bits. "
                "It stays out of this round."
            )

    def check_survivors(self, count: int, least: int) -> None:
        """Raise ProtocolError where fewer than ``least`` members, or than this client's floor, survive."""
        if count < max(least, self.minimum_cohort):
            raise ProtocolError(
                f"{count:,} members survive, and {max(least, self.minimum_cohort):,} are needed: the sum of so few would "
                "say too much of each. There is no result."
            )


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a client remembers of a run for ever: what it has begun, and for which round its vector has left."""

    run: str
    round: int = 0
    attempt: int = 0
    masked: int = 0  # the last round whose vector was masked

    def begun(self, terms: Terms) -> Past:
        """Return the past after these terms. Raises ProtocolError for a round that is replayed.

        Two sums over one update, of cohorts that differ by one client, would give that client's update away.
        """
        if terms.run != self.run:
            raise ProtocolError(f"The run {terms.run!r} was asked for; this client's memory is of {self.run!r}.")
        if terms.round <= self.masked or (terms.round, terms.attempt) <= (self.round, self.attempt):
            raise ProtocolError(
                f"Attempt {terms.attempt} of round {terms.round} was asked for, but this client has begun attempt "
                f"{self.attempt} of round {self.round} and given its vector for round {self.masked}. "
                "A round is not repeated: go on with the next."
            )
        return Past(run=self.run, round=terms.round, attempt=terms.attempt, masked=self.masked)
