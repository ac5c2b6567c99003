"""What a client refuses by itself, whatever the coordinator says; and what a coordinator does not take from a client."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from koinon.errors import ConfigurationError, FormatError, KoinonError, ProtocolError
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Advertised, Client, Masked, Ready, State
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import (
    Cohort,
    Delivery,
    PublicKeys,
    Request,
    Shares,
    SignedKeys,
    Survivors,
    agreement_message,
    standing_text,
    unmasking_message,
)
from koinon.privacy.secure_sum.neighbours import Assumptions, Degree
from koinon.privacy.secure_sum.primitives import KeyPair, Role
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.server import Stage, arrived, close, take, unmask
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import NO_ROSTER, Floors, Past, Terms
from koinon.privacy.secure_sum.wire import Kind, header

NAMES = tuple("abcdefg")  # seven: five survivors are needed, five shares open a secret
LAYOUT = Layout.of_bits(9, 1, bits=32, cohort=7, bound=1.0, largest_weight=10)
TERMS = Terms(run="heart", round=3, layout=LAYOUT)
LOW_ORDER = bytes(32)


def told(room: Room, party: str) -> bytes:
    """Return what the coordinator would send to a party next."""
    return close(room.server)[1][party]


@dataclass(frozen=True)
class Scene:
    """A round that has come to a stage, and one client's part in it."""

    room: Room
    identities: Identities
    party: str = "a"

    @property
    def state(self) -> State:
        return self.room.states[self.party]

    @property
    def letter(self) -> bytes:
        return told(self.room, self.party)

    def answer(self, body: bytes, party: str = "a") -> tuple[State, bytes | None]:
        return half.answer(self.room.states[party], body, self.identities.verify)

    def signed(self, party: str, keys: PublicKeys, run: str = TERMS.run) -> SignedKeys:
        """Return keys with a member's own signature on the standing one."""
        return SignedKeys(keys, self.identities.keys[party].sign(standing_text(run, party, TERMS.round, keys.standing)))

    def code(self, party: str, sets: Survivors) -> bytes:
        """Return a member's code on the survivors for the client."""
        cohort = self.room.server.known
        ends = cohort.places[party], cohort.places[self.party]
        return self.room.states[party].client.key.code(cohort, Role.AGREED, *ends, sets.text(cohort))


def at(stage: Stage, missing: dict[str, Stage] | None = None, floors: Floors | None = None) -> Scene:
    """Return a round whose coordinator waits for messages of ``stage`` and has had all before."""
    identities = Identities.of(NAMES)
    room = Room(TERMS, floors or Floors(), identities, missing or {})
    room.begin(NAMES)
    if stage is Stage.KEYS:
        return Scene(room, identities)
    room.step(Stage.SHARES)
    if stage is Stage.SHARES:
        return Scene(room, identities)
    for party in room.step(Stage.VECTORS):
        room.mask(party, LAYOUT.zero())
    if stage is Stage.VECTORS:
        return Scene(room, identities)
    room.step(Stage.AGREEMENT)
    return Scene(room, identities)


def begun(party: str, terms: Terms = TERMS, sign: half.Sign | None = None) -> tuple[Advertised, SignedKeys]:
    """Return a client that has begun under some terms, and its keys."""
    client = Client(party=party, floors=Floors(), past=Past(run=terms.run))
    state, said = half.begin(client, terms, (party.encode() * 32)[:32], sign or Ed25519PrivateKey.generate().sign)
    return state, SignedKeys.read(said, terms.digest())


def changed(scene: Scene, change: Callable[[Cohort], Cohort]) -> bytes:
    """Return the cohort's message after a change."""
    cohort = Cohort.read(scene.letter, TERMS.digest())
    return change(cohort).body


def with_member(cohort: Cohort, name: str, signed: SignedKeys) -> Cohort:
    members = dict(zip(cohort.names, cohort.signed, strict=True)) | {name: signed}
    return Cohort(tuple(sorted(members)), tuple(members[n] for n in sorted(members)), cohort.degree, cohort.terms)


# Rule 1: standing keys are signed by whom they say, for this run; what else is in a cohort, its members have seen.


@pytest.mark.parametrize("party", NAMES[1:])
def test_a_key_with_a_foreign_signature_is_refused(party: str) -> None:
    scene = at(Stage.KEYS)

    def foreign(cohort: Cohort) -> Cohort:
        keys = cohort.signed[cohort.places[party]].keys
        text = standing_text(TERMS.run, party, TERMS.round, keys.standing)
        return with_member(cohort, party, SignedKeys(keys, Ed25519PrivateKey.generate().sign(text)))

    with pytest.raises(ProtocolError, match=f"standing key of '{party}' is not signed by it"):
        scene.answer(changed(scene, foreign))


def test_a_key_without_a_signature_is_refused() -> None:
    scene = at(Stage.KEYS)

    def unsigned(cohort: Cohort) -> Cohort:
        return with_member(cohort, "c", replace(cohort.signed[2], signature=bytes(64)))

    with pytest.raises(ProtocolError, match="standing key of 'c' is not signed by it"):
        scene.answer(changed(scene, unsigned))


def test_a_stranger_in_the_cohort_is_refused() -> None:
    """Somebody whose key is in nobody's list, with a signature of its own."""
    scene = at(Stage.KEYS)

    def stranger(cohort: Cohort) -> Cohort:
        return replace(with_member(cohort, "zoe", begun("zoe")[1]), degree=Degree(8, 6))

    wide = Layout.of_bits(9, 1, bits=32, cohort=8, bound=1.0, largest_weight=10)
    assert isinstance(scene.state, Advertised)
    scene.room.states["a"] = replace(scene.state, terms=replace(TERMS, layout=wide))
    with pytest.raises(ProtocolError, match="standing key of 'zoe' is not signed by it"):
        scene.answer(changed(scene, stranger))


def test_a_key_of_another_run_or_name_is_refused() -> None:
    scene = at(Stage.KEYS)
    keys = scene.room.server.keys["b"].keys
    for signed in (scene.signed("b", keys, run="lung"), scene.signed("c", keys)):
        with pytest.raises(ProtocolError, match="standing key of 'b' is not signed by it for this run"):
            scene.answer(changed(scene, lambda cohort, signed=signed: with_member(cohort, "b", signed)))  # type: ignore[misc]


OTHER_TERMS = (
    replace(TERMS, round=2),
    replace(TERMS, attempt=1),
    replace(TERMS, roster=b"r" * 32),
    replace(TERMS, model=b"m" * 32),
    replace(TERMS, app=b"a" * 32),
    replace(TERMS, assumptions=Assumptions(corrupt=0.0)),
    replace(TERMS, layout=replace(LAYOUT, largest_weight=9)),
)


@pytest.mark.parametrize("other", [*OTHER_TERMS, replace(TERMS, run="lung")])
def test_a_cohort_of_another_round_run_roster_model_or_app_is_refused(other: Terms) -> None:
    scene = at(Stage.KEYS)
    with pytest.raises(FormatError, match="other terms, another roster, another round"):
        scene.answer(changed(scene, lambda cohort: replace(cohort, terms=other.digest())))


@pytest.mark.parametrize("other", OTHER_TERMS)
def test_nobody_masks_with_a_member_that_has_other_terms(other: Terms) -> None:
    """The coordinator shows b, who was sent another model, say, a cohort of its own with everybody's real keys."""
    scene = at(Stage.KEYS)
    state, signed = begun("b", other, scene.identities.keys["b"].sign)
    ours = Cohort.read(changed(scene, lambda cohort: with_member(cohort, "b", signed)), TERMS.digest())
    shared, _ = scene.answer(ours.body)
    theirs = replace(ours, terms=other.digest())
    from_b = Shares.read(half.share(state, theirs.body, scene.identities.verify)[1], theirs)
    assert isinstance(shared, half.Shared)
    for sealed in (from_b.sealed[0], bytes(80)):
        letters = {i: sealed for i in range(1, 7)}
        with pytest.raises(ProtocolError, match="share from 'b' does not open: it has seen another cohort"):
            half.receive(shared, Delivery(frozenset(range(7)), letters, {}).to_bytes(ours))


def test_nobody_masks_under_a_key_that_the_coordinator_has_made_up() -> None:
    """Nor under one of an earlier round, which it may have opened: its owner has shared for another cohort than that."""
    scene = at(Stage.KEYS)
    made_up = replace(scene.room.server.keys["d"].keys, mask=KeyPair(b"?" * 32).public)

    def swapped(cohort: Cohort) -> Cohort:
        return with_member(cohort, "d", replace(cohort.signed[3], keys=made_up))

    false = Cohort.read(changed(scene, swapped), TERMS.digest())
    honest = dict(scene.room.states)
    shared, _ = scene.answer(false.body)
    sealed = {}
    for i, name in enumerate(NAMES[1:], 1):
        body = changed(scene, lambda cohort: cohort) if name == "d" else false.body
        said = half.answer(honest[name], body, scene.identities.verify)[1]
        assert said is not None
        cohort = Cohort.read(body, TERMS.digest())
        sealed[i] = Shares.read(said, cohort).sealed[0]
    assert isinstance(shared, half.Shared)
    with pytest.raises(ProtocolError, match="share from 'd' does not open: it has seen another cohort"):
        half.receive(shared, Delivery(frozenset(range(7)), sealed, {}).to_bytes(false))
    with pytest.raises(ProtocolError, match="keys that 'd' has sent are not in the cohort"):
        half.answer(honest["d"], false.body, scene.identities.verify)


def test_another_roster_than_the_clients_is_refused_before_anything_is_sent() -> None:
    trusting = Client(party="a", floors=Floors(roster=b"r" * 32), past=Past(run="heart"))
    with pytest.raises(ProtocolError, match="this client trusts 7272"):
        half.begin(trusting, TERMS, bytes(32), lambda text: bytes(64))
    half.begin(trusting, replace(TERMS, roster=b"r" * 32), bytes(32), lambda text: bytes(64))
    assert TERMS.roster == NO_ROSTER


def test_a_cohort_in_which_somebody_is_twice_is_refused() -> None:
    scene = at(Stage.KEYS)

    def twice(cohort: Cohort) -> Cohort:
        keys = replace(cohort.signed[1].keys, mask=cohort.signed[2].keys.mask)
        return with_member(cohort, "b", scene.signed("b", keys))

    with pytest.raises(ProtocolError, match="somebody is there twice"):
        scene.answer(changed(scene, twice))


def test_a_cohort_without_this_client_or_with_other_keys_of_it_is_refused() -> None:
    scene = at(Stage.KEYS)

    def without(cohort: Cohort) -> Cohort:
        return Cohort(cohort.names[1:], cohort.signed[1:], Degree(6, 5), cohort.terms)

    def other(cohort: Cohort) -> Cohort:
        return with_member(cohort, "a", begun("a", sign=scene.identities.keys["a"].sign)[1])

    for change in (without, other):
        with pytest.raises(ProtocolError, match="keys that 'a' has sent are not in the cohort"):
            scene.answer(changed(scene, change))


def test_a_cohort_that_changes_after_the_shares_is_refused() -> None:
    scene = at(Stage.SHARES)
    cohort = scene.room.server.known
    for change in (
        replace(cohort, degree=Degree(7, 6)),
        Cohort(cohort.names[:-1], cohort.signed[:-1], Degree(6, 5), cohort.terms),
    ):
        with pytest.raises(ProtocolError, match="sends another cohort"):
            scene.answer(change.body)


# Rule 2: the floors are the client's.


def test_a_cohort_below_the_floor_is_refused() -> None:
    scene = at(Stage.KEYS, floors=Floors(minimum_cohort=5))
    scene.room.states["a"] = replace(scene.state, client=replace(scene.state.client, floors=Floors(minimum_cohort=8)))
    with pytest.raises(ProtocolError, match="has 7 members, and this client's floor is 8"):
        scene.answer(scene.letter)
    with pytest.raises(ConfigurationError, match="at least 3"):
        Floors(minimum_cohort=2)


@pytest.mark.parametrize("lowered", [Degree(7, 4), Degree(7, 2), Degree(6, 5), Degree(4, 4), Degree(7, 0)])
def test_a_lowered_threshold_or_graph_is_refused(lowered: Degree) -> None:
    scene = at(Stage.KEYS)
    with pytest.raises(ProtocolError, match="could open this client's secrets"):
        scene.answer(changed(scene, lambda cohort: replace(cohort, degree=lowered)))


def test_a_cohort_for_which_the_ring_has_no_room_is_refused() -> None:
    scene = at(Stage.KEYS)
    narrow = replace(TERMS, layout=replace(LAYOUT, cohort=6))
    assert isinstance(scene.state, Advertised)
    scene.room.states["a"] = replace(scene.state, terms=narrow)
    with pytest.raises(ProtocolError, match="the ring has room for 6"):
        scene.answer(scene.letter)


def test_a_largest_weight_above_the_clients_is_refused() -> None:
    careful = Client(party="a", floors=Floors(largest_weight=9), past=Past(run="heart"))
    with pytest.raises(ProtocolError, match="weights up to 10, this client 9"):
        half.begin(careful, TERMS, bytes(32), lambda text: bytes(64))


def test_fewer_sharers_or_survivors_than_the_floor_are_refused() -> None:
    scene = at(Stage.SHARES)
    letter = Delivery.read(scene.letter, scene.room.server.known)
    few = frozenset(range(4))
    shown = Delivery(few, {i: letter.sealed[i] for i in few - {0}}, {})
    with pytest.raises(ProtocolError, match="4 members survive, and 5 are needed"):
        scene.answer(shown.to_bytes(scene.room.server.known))


# Rule 3: one unmask request, with disjoint sets that are all who shared, agreed to by enough.


def survivors(active: str, dead: str) -> Survivors:
    return Survivors(*(frozenset(NAMES.index(name) for name in names) for names in (active, dead)))


def request(scene: Scene, sets: Survivors, agreed: str) -> bytes:
    codes = {NAMES.index(name): bytes(16) if name == "a" else scene.code(name, sets) for name in agreed}
    return Request(sets, codes).to_bytes(scene.room.server.known)


WRONG_SETS = [
    (survivors("abcdefg", "g"), "'g' is called both active and dead"),
    (survivors("abcdefg", "a"), "'a' is called both active and dead"),
    (survivors("abcdef", ""), "6 active and 0 dead ones are not they"),
    (survivors("bcdefg", "a"), "is not among the survivors"),
    (survivors("abcd", "efg"), "4 members survive, and 5 are needed"),
]


@pytest.mark.parametrize(("sets", "why"), WRONG_SETS)
def test_wrong_survivors_are_neither_agreed_to_nor_answered(sets: Survivors, why: str) -> None:
    scene = at(Stage.VECTORS)
    with pytest.raises(ProtocolError, match=why):
        scene.answer(sets.to_bytes(scene.room.server.known))
    with pytest.raises(ProtocolError, match=why):
        scene.answer(request(scene, sets, "bcdefg" if 0 not in sets.active else "abcdefg"))


@pytest.mark.parametrize("agreed", ["", "a", "bcd", "abcd"])
def test_too_few_codes_open_nothing(agreed: str) -> None:
    """A client counts itself, once."""
    scene = at(Stage.AGREEMENT)
    with pytest.raises(
        ProtocolError, match=f"{len({*agreed, 'a'})} survivors have told this client .* and 5 are needed"
    ):
        scene.answer(request(scene, survivors("abcdefg", ""), agreed))


def test_a_code_that_is_not_its_senders_own_does_not_count() -> None:
    scene = at(Stage.AGREEMENT)
    cohort, sets = scene.room.server.known, survivors("abcdefg", "")
    codes = {NAMES.index(name): scene.code(name, sets) for name in "bcde"}
    assert scene.answer(Request(sets, codes).to_bytes(cohort))[1]
    key = scene.room.states["e"].client.key
    for forged in (
        scene.code("f", sets),  # another's
        scene.code("e", survivors("abcdef", "g")),  # on other survivors
        key.code(cohort, Role.AGREED, 4, 1, sets.text(cohort)),  # for b
        key.code(cohort, Role.AGREED, 0, 4, sets.text(cohort)),  # the client's own for it, sent back
        key.code(cohort, Role.SEEN, 4, 0, sets.text(cohort)),
        bytes(16),
    ):
        with pytest.raises(ProtocolError, match="4 survivors have told .* not their senders' own: e"):
            scene.answer(Request(sets, {**codes, 4: forged}).to_bytes(cohort))
        with_f = {**codes, 4: forged, 5: scene.code("f", sets)}
        assert scene.answer(Request(sets, with_f).to_bytes(cohort))[1], "one wrong code stops nobody"


def test_a_code_of_one_who_has_not_survived_does_not_count() -> None:
    scene = at(Stage.VECTORS)
    sets = survivors("abcdef", "g")
    with pytest.raises(ProtocolError, match="4 survivors have told .* own: g"):
        scene.answer(request(scene, sets, "abcdg"))
    assert scene.answer(request(scene, sets, "abcde"))[1]


def test_a_second_unmask_request_is_refused_and_the_first_answered_again() -> None:
    """Also where the first set was only agreed to, and also after the client was killed (its record is all it has)."""
    scene = at(Stage.VECTORS)
    first, second = survivors("abcdefg", ""), survivors("abcdef", "g")
    state, said = scene.answer(request(scene, first, "abcdefg"))
    scene.room.states["a"] = state
    assert scene.answer(request(scene, first, "abcde"))[1] == said
    for body in (request(scene, second, "abcdef"), second.to_bytes(scene.room.server.known)):
        with pytest.raises(ProtocolError, match="answers once"):
            scene.answer(body)
    signed = at(Stage.VECTORS)
    signed.room.states["a"], _ = signed.answer(first.to_bytes(signed.room.server.known))
    with pytest.raises(ProtocolError, match="answers once"):
        signed.answer(request(signed, second, "abcdef"))


def test_an_answer_never_holds_both_shares_of_a_member() -> None:
    scene = at(Stage.VECTORS)
    state = scene.state
    assert isinstance(state, Masked)
    sets = survivors("abcdef", "g")
    _, said = scene.answer(request(scene, sets, "abcdef"))
    opened = {i: state.held[i][:32] if i in sets.active else state.held[i][32:] for i in range(7)}
    assert said == unmasking_message(scene.room.server.known.transcript, opened)


# Rule 4: keys of low order, shares for somebody else, rounds that come again.


@pytest.mark.parametrize("which", ["standing", "mask"])
def test_a_key_of_low_order_is_refused(which: str) -> None:
    """Its owner has signed it: it wants everybody to know its masks."""
    scene = at(Stage.KEYS)

    def low(cohort: Cohort) -> Cohort:
        return with_member(cohort, "d", scene.signed("d", replace(cohort.signed[3].keys, **{which: LOW_ORDER})))

    body = changed(scene, low)
    if which == "standing":
        with pytest.raises(ProtocolError, match="'d' is of low order"):
            scene.answer(body)
        return
    cohort = Cohort.read(body, TERMS.digest())
    state = scene.room.states["a"]
    assert isinstance(state, Advertised)
    ready = Ready(client=state.client, terms=TERMS, own=state.own, cohort=cohort, sharers=frozenset(range(7)), held={})
    with pytest.raises(ProtocolError, match="'d' is of low order"):
        half.mask(ready, LAYOUT.zero())


def test_a_share_that_was_changed_or_is_for_another_is_refused() -> None:
    scene = at(Stage.SHARES)
    cohort = scene.room.server.known
    letter = Delivery.read(scene.letter, cohort)
    for wrong in (
        letter.sealed[3][:-1] + bytes([letter.sealed[3][-1] ^ 1]),
        scene.room.server.shares[3].sealed[1],  # d's share for b
        scene.room.server.shares[2].sealed[0],  # c's share for a, said to be d's
        scene.room.server.shares[0].sealed[3],  # what a itself has sealed for d
    ):
        with pytest.raises(ProtocolError, match="share from 'd' does not open"):
            scene.answer(replace(letter, sealed={**letter.sealed, 3: wrong}).to_bytes(cohort))


@pytest.mark.parametrize(
    "change",
    [
        lambda letter: replace(letter, sealed={i: s for i, s in letter.sealed.items() if i != 3}),
        lambda letter: replace(letter, sharers=letter.sharers - {3}),
        lambda letter: replace(letter, sharers=letter.sharers - {0}),
        lambda letter: replace(letter, sealed={**letter.sealed, 0: letter.sealed[3]}),
    ],
)
def test_shares_that_are_missing_or_of_nobody_are_refused(change: Callable[[Delivery], Delivery]) -> None:
    scene = at(Stage.SHARES)
    cohort = scene.room.server.known
    with pytest.raises(ProtocolError, match="shares for us are missing|has not shared"):
        scene.answer(change(Delivery.read(scene.letter, cohort)).to_bytes(cohort))


def test_a_client_whose_neighbours_are_said_not_to_have_shared_masks_nothing() -> None:
    """With few masks, all of them with members that are called dead later, its vector could be read."""
    names = tuple(f"c{i:02}" for i in range(100))
    terms, identities = replace(TERMS, layout=replace(LAYOUT, cohort=100)), Identities.of(names)
    room = Room(terms, Floors(), identities, {})
    room.begin(names)
    room.step(Stage.SHARES)
    cohort, state, letter = room.server.known, room.states["c07"], told(room, "c07")
    assert isinstance(state, half.Shared) and cohort.degree == Degree(41, 31)
    delivery, holders = Delivery.read(letter, cohort), state.own.holders(cohort, 7)
    for gone, served in ((10, True), (11, False), (33, False)):
        sharers = delivery.sharers - set(holders[:gone])
        sealed, codes = ({i: s for i, s in of.items() if i in sharers} for of in (delivery.sealed, delivery.codes))
        body = Delivery(sharers, sealed, codes).to_bytes(cohort)
        if served:
            assert isinstance(half.receive(state, body), Ready)
        else:
            with pytest.raises(
                ProtocolError, match=f"{41 - gone} of those who hold shares of 'c07' have shared, and 31"
            ):
                half.receive(state, body)


def test_a_neighbour_that_sends_no_share_shows_by_a_code_that_it_has_seen_the_cohort() -> None:
    """Else the coordinator could make up the mask keys of all whose shares a client of a sparse graph does not hold."""
    names = tuple(f"c{i:02}" for i in range(100))
    terms, identities = replace(TERMS, layout=replace(LAYOUT, cohort=100)), Identities.of(names)
    room = Room(terms, Floors(), identities, {})
    room.begin(names)
    room.step(Stage.SHARES)
    cohort, state = room.server.known, room.states["c07"]
    delivery = Delivery.read(told(room, "c07"), cohort)
    assert isinstance(state, half.Shared)
    assert delivery.codes.keys() == set(state.own.holders(cohort, 7)) - delivery.sealed.keys()
    first, second = sorted(delivery.codes)[:2]
    for wrong in (delivery.codes[second], room.server.shares[first].code(8), bytes(16)):
        body = replace(delivery, codes={**delivery.codes, first: wrong}).to_bytes(cohort)
        with pytest.raises(ProtocolError, match=f"code of '{names[first]}' on the cohort is not its own"):
            half.receive(state, body)
    for codes in ({i: c for i, c in delivery.codes.items() if i != first}, {**delivery.codes, 7: bytes(16)}, {}):
        with pytest.raises(ProtocolError, match="nobody would say that the others' keys are theirs"):
            half.receive(state, replace(delivery, codes=codes).to_bytes(cohort))
    assert isinstance(half.receive(state, delivery.to_bytes(cohort)), Ready)


def test_a_round_that_comes_again_is_refused() -> None:
    scene = at(Stage.VECTORS)
    client = scene.state.client
    assert client.past == Past(run="heart", round=3, attempt=0, masked=3)

    def begin(terms: Terms, of: Client = client) -> Client:
        return half.begin(of, terms, bytes(32), lambda text: bytes(64))[0].client

    for again in (TERMS, replace(TERMS, attempt=1), replace(TERMS, round=2)):
        with pytest.raises(ProtocolError, match="A round is not repeated"):
            begin(again)
    with pytest.raises(ProtocolError, match="memory is of 'heart'"):
        begin(replace(TERMS, run="lung"))
    fourth = begin(replace(TERMS, round=4))
    assert begin(replace(TERMS, round=4, attempt=1), fourth).past.attempt == 1, (
        "nothing was masked: another attempt is safe"
    )
    with pytest.raises(ProtocolError, match="A round is not repeated"):
        begin(replace(TERMS, round=4), fourth)


def test_messages_that_leave_a_step_out_are_refused() -> None:
    scene, later = at(Stage.KEYS), at(Stage.VECTORS)
    for body in (later.letter, request(later, survivors("abcdefg", ""), "abcdefg")):
        with pytest.raises(ProtocolError, match="has left a step out"):
            scene.answer(body)
    with pytest.raises(FormatError, match="begins no message"):
        scene.answer(b"\x80\x04pickle")
    with pytest.raises(FormatError, match="begins no message"):
        scene.answer(b"kss\x02\x02")


# Rule 5: the vector. (Weights beyond their cap and numbers that are not finite: test_secure_sum_numbers.)


def test_a_vector_of_another_layout_is_not_masked() -> None:
    scene = at(Stage.SHARES)
    scene.room.states["a"] = scene.answer(scene.letter)[0]
    ready = scene.state
    assert isinstance(ready, Ready)
    for body, tail in (
        (np.zeros(8, np.uint32), np.zeros(2, np.uint64)),
        (np.zeros(9, np.uint64), np.zeros(2, np.uint64)),
        (np.zeros(9, np.uint32), np.zeros(1, np.uint64)),
    ):
        with pytest.raises(ProtocolError, match="was agreed on"):
            half.mask(ready, Vector(body, tail))


# What the coordinator does not take.


def test_the_coordinator_takes_no_message_of_a_stranger_or_of_another_stage() -> None:
    scene = at(Stage.SHARES)
    verify, server = scene.identities.verify, scene.room.server
    with pytest.raises(ProtocolError, match="'zoe' is not in the cohort"):
        take(server, "zoe", b"", verify)
    with pytest.raises(FormatError, match="message shares"):
        take(server, "b", header(Kind.AGREEMENT), verify)
    with pytest.raises(ProtocolError, match="come in the stage shares"):
        arrived(server, "b")
    shares, cohort = server.shares[1], server.known
    assert Shares.read(shares.to_bytes(cohort), cohort) == shares
    assert take(server, "b", shares.to_bytes(cohort), verify) == server
    with pytest.raises(ProtocolError, match="has said something else before"):
        take(server, "b", Shares({**shares.sealed, 0: bytes(80)}).to_bytes(cohort), verify)
    with pytest.raises(ProtocolError, match="deals 5 shares"):
        take(server, "b", Shares({i: bytes(80) for i in (0, 2, 3, 4, 5)}).to_bytes(cohort), verify)
    keys = at(Stage.KEYS)
    with pytest.raises(ProtocolError, match="is not signed by it"):
        take(keys.room.server, "zoe", begun("zoe")[1].to_bytes(TERMS.digest()), keys.identities.verify)
    agreeing = at(Stage.AGREEMENT)
    codes = agreeing.room.server.codes[1]
    with pytest.raises(ProtocolError, match="has said something else before"):
        take(agreeing.room.server, "b", agreement_message(agreeing.room.server.known, codes[::-1]), verify)
    for wrong in (codes[1:], codes + codes[:16], b""):
        with pytest.raises(FormatError):
            take(agreeing.room.server, "b", agreement_message(agreeing.room.server.known, wrong), verify)


def test_a_late_vector_is_not_added() -> None:
    scene = at(Stage.AGREEMENT, missing={"g": Stage.VECTORS})
    with pytest.raises(ProtocolError, match="its masks would stay in the sum"):
        arrived(scene.room.server, "g")
    with pytest.raises(ProtocolError, match="has not survived"):
        take(scene.room.server, "g", header(Kind.AGREEMENT), scene.identities.verify)


@pytest.mark.parametrize("missing", [{}, {"g": Stage.VECTORS}])
def test_a_wrong_share_is_an_error_and_no_number(missing: dict[str, Stage]) -> None:
    scene = at(Stage.AGREEMENT, missing=missing)
    scene.room.step(Stage.UNMASKING)
    owner = 6 if missing else 1
    answers = {**scene.room.server.answers, 0: {**scene.room.server.answers[0], owner: b"?" * 32}}
    wrong = replace(scene.room.server, answers=answers)
    with pytest.raises(ProtocolError, match=f"shares of a secret of '{NAMES[owner]}' do not give it"):
        unmask(wrong, LAYOUT.zero())
    unmask(scene.room.server, LAYOUT.zero())


@pytest.mark.parametrize("cut", [0, 4, 5, 30, 37, 38, -1])
def test_a_message_that_is_cut_short_or_too_long_is_an_error(cut: int) -> None:
    letters = [at(Stage.KEYS), at(Stage.SHARES), at(Stage.VECTORS), at(Stage.AGREEMENT)]
    for scene in letters:
        body = scene.letter
        for wrong in (body[:cut], body + b"?"):
            with pytest.raises(KoinonError):
                scene.answer(wrong)


def test_an_announced_length_is_not_believed() -> None:
    scene = at(Stage.KEYS)
    start = scene.letter[:37]
    for count in (2**32 - 1, 10_001, 10_000):
        with pytest.raises(FormatError, match="the most|cut short"):
            scene.answer(start + count.to_bytes(4, "big") + bytes(100))
