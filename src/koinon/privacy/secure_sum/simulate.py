"""The real messages among clients in memory, with whatever goes missing: what tests, benchmarks and simulations run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Client, Ready, State
from koinon.privacy.secure_sum.primitives import KEY_BYTES
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.server import Server, Stage, arrived, close, take, unmask
from koinon.privacy.secure_sum.terms import Floors, Past, Terms

_ORDER = tuple(Stage)


@dataclass(frozen=True)
class Identities:
    """Ed25519 keys of parties that exist in this process only. A signature is verified once, whoever asks."""

    keys: Mapping[str, Ed25519PrivateKey]
    seen: dict[tuple[str, bytes, bytes], bool] = field(default_factory=dict)

    @classmethod
    def of(cls, parties: Iterable[str]) -> Identities:
        """Return fresh keys for parties."""
        return cls({party: Ed25519PrivateKey.generate() for party in parties})

    def verify(self, party: str, text: bytes, signature: bytes) -> bool:
        """Return whether a signature is the party's."""
        asked = (party, text, signature)
        if asked not in self.seen:
            self.seen[asked] = self._verified(*asked)
        return self.seen[asked]

    def _verified(self, party: str, text: bytes, signature: bytes) -> bool:
        if party not in self.keys:
            return False
        try:
            self.keys[party].public_key().verify(signature, text)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Outcome:
    """The sum of the survivors' vectors, who they are, and how many bytes of messages each party has sent."""

    total: Vector
    survivors: tuple[str, ...]
    sent: Mapping[str, int]


def simulate(
    terms: Terms,
    vectors: Mapping[str, Vector],
    missing: Mapping[str, Stage] | None = None,
    floors: Floors | None = None,
    threads: int = 1,
) -> Outcome:
    """Return the sum of ``vectors`` as the protocol makes it; each is masked in place.

    ``missing`` names the stage before whose message a party falls silent for good. Raises ProtocolError where the protocol
    ends without a result.
    """
    room = Room(terms, floors or Floors(), Identities.of(vectors), missing or {})
    total = terms.layout.zero()
    room.begin(vectors)
    room.step(Stage.SHARES)
    for party in room.step(Stage.VECTORS):
        room.mask(party, vectors[party], threads)
        total += vectors[party]
    room.step(Stage.AGREEMENT)
    room.step(Stage.UNMASKING)
    unmask(room.server, total, threads)
    cohort = room.server.known
    return Outcome(total, tuple(cohort.names[i] for i in sorted(room.server.active)), room.sent)


class Room:
    """Both halves in one place, a stage at a time."""

    def __init__(self, terms: Terms, floors: Floors, identities: Identities, missing: Mapping[str, Stage]) -> None:
        self.server = Server(terms=terms, minimum=floors.minimum_cohort)
        self.states: dict[str, State] = {}
        self.sent: Counter[str] = Counter()
        self._floors, self._identities, self._missing = floors, identities, missing

    def begin(self, parties: Iterable[str]) -> None:
        """Let every party that is there send its keys."""
        terms = self.server.terms
        for party in parties:
            if self._there(party, Stage.KEYS):
                client = Client(party=party, floors=self._floors, past=Past(run=terms.run))
                sign = self._identities.keys[party].sign
                self.states[party], body = half.begin(client, terms, os.urandom(KEY_BYTES), sign)
                self._post(party, body)

    def step(self, stage: Stage) -> tuple[str, ...]:
        """Close the stage before, hand its messages to everybody who is there, and return who that is."""
        self.server, letters = close(self.server)
        if self.server.stage is not stage:
            raise ProtocolError(f"The stage {stage.value} was asked for; {self.server.stage.value} follows.")
        there = tuple(party for party in letters if self._there(party, stage))
        for party in there:
            self.states[party], said = half.answer(self.states[party], letters[party], self._identities.verify)
            if said is not None:
                self._post(party, said)
        return there

    def mask(self, party: str, vector: Vector, threads: int = 1) -> None:
        """Mask a party's vector in place and say that it has arrived."""
        state = self.states[party]
        if not isinstance(state, Ready):
            raise ProtocolError(f"{party!r} is asked to mask and has come as far as {type(state).__name__.lower()!r}.")
        self.states[party] = half.mask(state, vector, threads)
        self.server = arrived(self.server, party)

    def _there(self, party: str, stage: Stage) -> bool:
        return party not in self._missing or _ORDER.index(stage) < _ORDER.index(self._missing[party])

    def _post(self, party: str, body: bytes) -> None:
        self.sent[party] += len(body)
        self.server = take(self.server, party, body, self._identities.verify)
