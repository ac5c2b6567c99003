"""What a standing key is good for in other hands: who comes by it later, who copies it, who goes by an older one."""

import numpy as np

from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Client, Masked
from koinon.privacy.secure_sum.keys import StandingKey
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import Cohort
from koinon.privacy.secure_sum.primitives import KeyPair, Role, derive, unseal
from koinon.privacy.secure_sum.saved import from_bytes, to_bytes
from koinon.privacy.secure_sum.server import Stage
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
