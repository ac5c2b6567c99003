"""What a standing key is good for in other hands: who comes by it later, who copies it, who goes by an older one."""

from dataclasses import replace

import numpy as np
import pytest

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Client, Masked
from koinon.privacy.secure_sum.keys import StandingKey
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import ROUNDS, Cohort, Delivery, Shares, SignedKeys, standing_text
from koinon.privacy.secure_sum.primitives import KeyPair, Role, derive, seal, unseal
from koinon.privacy.secure_sum.saved import from_bytes, to_bytes
from koinon.privacy.secure_sum.server import Stage, close, take, unmask
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors, Terms

NAMES = tuple("abcdefg")
LAYOUT = Layout.of_bits(5, 1, bits=32, cohort=7, bound=1.0, largest_weight=10)
TERMS = Terms(run="heart", round=1, layout=LAYOUT)


def opened(missing: dict[str, Stage]) -> Room:
    """Return a round that has come to its end."""
    room = Room(TERMS, Floors(), Identities.of(NAMES), missing)
    room.begin(NAMES)
    room.step(Stage.SHARES)
    for party in room.step(Stage.VECTORS):
        room.mask(party, LAYOUT.encode(np.full(5, 0.5, np.float32), 3, np.array([1.0])))
    room.step(Stage.AGREEMENT)
    room.step(Stage.UNMASKING)
    return room


def stolen(room: Room, party: str) -> StandingKey:
    """Return the standing key that is on a party's disk after the round."""
    state = room.states[party]
    assert isinstance(state, Masked)
    record = from_bytes(to_bytes(state.client))
    assert isinstance(record, Client)
    return record.key


def opens(
    key: StandingKey, cohort: Cohort, sealed: bytes, ends: tuple[int, int], other: int, mask: bytes = b""
) -> bool:
    """Return whether a share opens under a standing key, and under what is known of the mask keys."""
    sealing = derive(key.agreed(cohort, other) + mask, cohort.transcript, Role.SHARE, *ends)
    text = cohort.transcript + ends[0].to_bytes(4, "big") + ends[1].to_bytes(4, "big")
    return unseal(sealing, sealed, text) is not None


def test_who_comes_by_a_standing_key_later_opens_no_share_that_was_recorded() -> None:
    """Else one key would give away every vector of its owner, since it agrees with all who hold shares of its secrets."""
    room = opened({})
    cohort, keys = room.server.known, [stolen(room, party) for party in NAMES]
    for sender, shares in room.server.shares.items():
        for receiver, sealed in shares.sealed.items():
            assert not opens(keys[sender], cohort, sealed, (sender, receiver), receiver)
            assert not opens(keys[receiver], cohort, sealed, (sender, receiver), sender)


def test_of_a_survivors_shares_only_those_for_the_dead_open_under_its_standing_key() -> None:
    """The mask keys of the dead are opened, of fewer than a threshold."""
    room = opened({"f": Stage.VECTORS, "g": Stage.VECTORS})
    cohort, key, dealt = room.server.known, stolen(room, "a"), room.server.shares[0].sealed
    found = []
    for holder in range(1, 7):
        state = room.states[NAMES[holder]]
        if not isinstance(state, Masked):  # what the coordinator has opened
            assert isinstance(state, half.Shared)
            agreed = KeyPair(state.own.secret(Role.MASK_KEY)).agree(cohort.signed[0].keys.mask, "a")
            found += [holder] if opens(key, cohort, dealt[holder], (0, holder), holder, agreed) else []
    assert found == [5, 6] and len(found) < cohort.degree.threshold


def test_what_the_dead_have_dealt_hangs_on_standing_keys_alone() -> None:
    """The limit of the above, which docs/secure-sum.md has to say: no threshold is left for who was called dead."""
    room = opened({"g": Stage.VECTORS})
    cohort, state = room.server.known, room.states["g"]
    assert isinstance(state, half.Shared)
    for holder, sealed in room.server.shares[6].sealed.items():
        mask = state.own.agreed(cohort, holder)  # as the coordinator has it from the opened mask key
        assert opens(state.client.key, cohort, sealed, (6, holder), holder, mask)


@pytest.mark.parametrize("twisted", [False, True], ids=["its bytes", "the same point in other bytes"])
def test_who_signs_anothers_standing_key_as_its_own_is_out_and_stops_nobody(twisted: bool) -> None:
    """It is known from earlier rounds. Who has copied it cannot share; the rest come to their sum."""
    identities = Identities.of(NAMES)
    room = Room(TERMS, Floors(), identities, {"g": Stage.SHARES})
    room.begin(NAMES)
    copied = bytearray(room.server.keys["a"].keys.standing)
    copied[31] ^= 0x80 * twisted  # X25519 does not look at this bit
    keys = replace(room.server.keys["g"].keys, standing=bytes(copied))
    said = SignedKeys(keys, identities.keys["g"].sign(standing_text(TERMS.run, "g", 1, keys.standing)))
    left = {party: signed for party, signed in room.server.keys.items() if party != "g"}
    room.server = take(replace(room.server, keys=left), "g", said.to_bytes(TERMS.digest()), identities.verify)
    room.step(Stage.SHARES)
    total = LAYOUT.zero()
    for party in room.step(Stage.VECTORS):
        vector = LAYOUT.encode(np.full(5, 0.5, np.float32), 3, np.array([1.0]))
        room.mask(party, vector)
        total += vector
    room.step(Stage.AGREEMENT)
    room.step(Stage.UNMASKING)
    unmask(room.server, total)
    assert LAYOUT.decode(total).weight == 18


def test_who_signs_anothers_standing_key_as_its_own_neither_opens_a_share_nor_seals_one() -> None:
    identities = Identities.of(NAMES)
    room = Room(TERMS, Floors(), identities, {})
    room.begin(NAMES)
    thief = room.states["g"]
    assert isinstance(thief, half.Advertised)
    keys = replace(room.server.keys["g"].keys, standing=room.server.keys["a"].keys.standing)
    signed = SignedKeys(keys, identities.keys["g"].sign(standing_text(TERMS.run, "g", 1, keys.standing)))
    room.server = replace(room.server, keys={**room.server.keys, "g": signed})
    body = close(room.server)[1]["b"]
    cohort, (shared, said) = Cohort.read(body, TERMS.digest()), half.answer(room.states["b"], body, identities.verify)
    assert isinstance(shared, half.Shared) and said is not None
    dealt = Shares.read(said, cohort).sealed
    mask = thief.own.agreed(cohort, 1)
    assert not opens(thief.client.key, cohort, dealt[6], (1, 6), 1, mask)
    forged = derive(thief.client.key.agreed(cohort, 1) + mask, cohort.transcript, Role.SHARE, 6, 1)
    others = {i: half.answer(room.states[NAMES[i]], body, identities.verify)[1] for i in (0, 2, 3, 4, 5)}
    sealed = {i: Shares.read(each, cohort).sealed[1] for i, each in others.items() if each is not None}
    sealed[6] = seal(forged, bytes(64), cohort.transcript + bytes([0, 0, 0, 6, 0, 0, 0, 1]))
    with pytest.raises(ProtocolError, match="share from 'g' does not open"):
        half.receive(shared, Delivery(frozenset(range(7)), sealed, {}).to_bytes(cohort))


def test_a_key_of_before_these_rounds_stands_no_more() -> None:
    """Who has come by it would speak for its owner as long as the run goes on."""
    identities, terms = Identities.of(NAMES), replace(TERMS, round=ROUNDS)
    room = Room(terms, Floors(), identities, {})
    room.begin(NAMES)
    body = close(room.server)[1]["a"]
    assert isinstance(half.answer(room.states["a"], body, identities.verify)[0], half.Shared)
    keys = room.server.keys["g"].keys
    for round in (1, ROUNDS - 1, 2 * ROUNDS):
        old = SignedKeys(keys, identities.keys["g"].sign(standing_text(TERMS.run, "g", round, keys.standing)))
        left = {party: signed for party, signed in room.server.keys.items() if party != "g"}
        with pytest.raises(ProtocolError, match="key of 'g' is not signed by it for this run and round"):
            take(replace(room.server, keys=left), "g", old.to_bytes(terms.digest()), identities.verify)
        told = close(replace(room.server, keys={**left, "g": old}))[1]["a"]
        with pytest.raises(ProtocolError, match="key of 'g' is not signed by it for this run and round"):
            half.answer(room.states["a"], told, identities.verify)
