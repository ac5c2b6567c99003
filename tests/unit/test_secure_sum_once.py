"""What is dear in a secure sum is done once: key agreements and signatures, on keys that stand for many rounds."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum import primitives
from koinon.privacy.secure_sum.client import Client, Masked
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import ROUNDS, Request, SignedKeys
from koinon.privacy.secure_sum.neighbours import quorum
from koinon.privacy.secure_sum.primitives import Role
from koinon.privacy.secure_sum.server import Stage, close
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors, Past, Terms

COHORT = 7
NAMES = [f"site{i}" for i in range(COHORT)]


class Counted:
    """A judge of signatures that remembers whose it was asked about."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self.asked: list[str] = []

    def __call__(self, party: str, text: bytes, signature: bytes) -> bool:
        self.asked.append(party)
        return self._identities.verify(party, text, signature)


def at(stage: Stage) -> tuple[Room, Identities]:
    """Return a round at a stage, everybody having said what it says there."""
    layout = Layout.of_bits(5, 1, bits=32, cohort=COHORT, bound=1.0)
    identities = Identities.of(NAMES)
    room = Room(Terms(run="once", round=1, layout=layout), Floors(), identities, {})
    room.begin(NAMES)
    for following in tuple(Stage)[1 : tuple(Stage).index(stage) + 1]:
        for party in room.step(following):
            if following is Stage.VECTORS:
                room.mask(party, layout.zero())
    return room, identities


def test_signatures_are_asked_about_once_a_round_and_only_those_of_others() -> None:
    room, identities = at(Stage.KEYS)
    letters = close(room.server)[1]
    for name in NAMES:
        judge, state = Counted(identities), room.states[name]
        half.answer(state, letters[name], judge)
        assert judge.asked == [other for other in NAMES if other != name]


def test_a_client_counts_itself_once_whatever_the_coordinator_says_in_its_name() -> None:
    room, _ = at(Stage.AGREEMENT)
    request = Request.read(close(room.server)[1][NAMES[0]], room.server.known)
    state, others = room.states[NAMES[0]], {i: code for i, code in request.codes.items() if i != 0}
    assert isinstance(state, Masked)
    for own in (bytes(16), b"?" * 16):
        few = dict(list(others.items())[: quorum(COHORT) - 2])
        with pytest.raises(ProtocolError, match="4 survivors have told this client"):
            half.reveal(state, Request(request.survivors, {**few, 0: own}).to_bytes(room.server.known))
    enough = dict(list(others.items())[: quorum(COHORT) - 1])
    assert half.reveal(state, Request(request.survivors, enough).to_bytes(room.server.known))[1]


def test_a_standing_key_serves_many_rounds_and_is_signed_once() -> None:
    identities, signed = Identities.of(["a"]), []

    def sign(text: bytes) -> bytes:
        signed.append(text)
        return identities.keys["a"].sign(text)

    client = Client(party="a", floors=Floors(), past=Past(run="once"))
    terms = Terms(run="once", round=5, layout=Layout.of_bits(5, 1, bits=32, cohort=COHORT, bound=1.0))
    told = []
    for round in (5, 6, ROUNDS - 1, ROUNDS, 2 * ROUNDS - 1):
        state, body = half.begin(client, replace(terms, round=round), os.urandom(32), sign)
        client = state.client
        told.append(SignedKeys.read(body, state.terms.digest()))
    assert len(signed) == 2
    standing = [each.keys.standing for each in told]
    assert standing[0] == standing[1] == standing[2] != standing[3] == standing[4]
    assert len({each.keys.mask for each in told}) == 5, "what masks is drawn anew for every attempt"
    assert (
        half.begin(replace(client, standing=None), replace(terms, round=999), bytes(32), sign)[0].client.key.born == 999
    )


def test_what_has_been_agreed_on_serves_later_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    count = counted(monkeypatch)
    room, _ = at(Stage.VECTORS)
    assert count() == 2 * COHORT * (COHORT - 1)
    cohort, me = room.server.known, 0
    key = room.states[NAMES[0]].client.key
    derived = set()
    for of in (cohort, replace(cohort, terms=b"?" * 32)):
        for role in Role:
            for other in range(1, COHORT):
                derived |= {key.code(of, role, me, other, b""), key.code(of, role, other, me, b"")}
    assert count() == 2 * COHORT * (COHORT - 1)
    assert len(derived) == 2 * len(Role) * 2 * (COHORT - 1), "a key for each cohort, use and direction"


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return what says how many keys have been agreed on: for each other member one that stands, and one of masks."""
    count = 0

    class Key:
        def __init__(self, private: bytes) -> None:
            self._key = x25519.X25519PrivateKey.from_private_bytes(private)

        from_private_bytes = classmethod(lambda cls, private: cls(private))

        def public_key(self) -> x25519.X25519PublicKey:
            return self._key.public_key()

        def exchange(self, other: x25519.X25519PublicKey) -> bytes:
            nonlocal count
            count += 1
            return self._key.exchange(other)

    monkeypatch.setattr(primitives, "X25519PrivateKey", Key)
    return lambda: count
