"""What is dear in a secure sum is done once: key agreements, and signatures as many as say something."""

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum import primitives
from koinon.privacy.secure_sum.client import Masked
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import Request
from koinon.privacy.secure_sum.neighbours import quorum
from koinon.privacy.secure_sum.server import Stage, close, take
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors, Terms

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


def test_a_client_asks_about_everybodys_signature_but_its_own() -> None:
    room, identities = at(Stage.AGREEMENT)
    body = close(room.server)[1][NAMES[0]]
    signers = {room.server.known.names[i] for i in Request.read(body, room.server.known).signatures}
    assert len(signers) == quorum(COHORT)
    for name in NAMES:
        judge, state = Counted(identities), room.states[name]
        assert isinstance(state, Masked)
        half.reveal(state, body, judge)
        assert sorted(judge.asked) == sorted(signers - {name})


def test_a_client_that_has_signed_nothing_asks_about_its_own_name_too() -> None:
    """A coordinator that says so in its name is not believed."""
    room, identities = at(Stage.VECTORS)
    unsigned = room.states[NAMES[0]]
    assert isinstance(unsigned, Masked)
    assert unsigned.signed is None
    room.step(Stage.AGREEMENT)
    request = Request.read(close(room.server)[1][NAMES[0]], room.server.known)
    me = room.server.known.places[NAMES[0]]
    forged = Request(request.survivors, {**request.signatures, me: bytes(64)}).to_bytes(room.server.known)
    with pytest.raises(ProtocolError, match="'site0' on the survivors is not its own"):
        half.reveal(unsigned, forged, identities.verify)


def test_a_coordinator_verifies_no_more_signatures_than_it_sends_on() -> None:
    room, identities = at(Stage.VECTORS)
    server, letters = close(room.server)
    judge = Counted(identities)
    for name in NAMES:
        state = room.states[name]
        assert isinstance(state, Masked)
        _, said = half.agree(state, letters[name], identities.keys[name].sign)
        server = take(server, name, said, judge)
    assert judge.asked == NAMES[: quorum(COHORT)]
    assert len(server.signatures) == quorum(COHORT)


def test_a_pair_agrees_once_for_the_shares_of_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six others: one agreement each under the key of the shares, one each under that of the masks."""
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
    at(Stage.VECTORS)
    assert count == 2 * COHORT * (COHORT - 1)
