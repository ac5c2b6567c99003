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
    Request,
    SignedKeys,
    Survivors,
    keys_text,
    read_shares,
    shares_message,
    unmasking_message,
)
from koinon.privacy.secure_sum.neighbours import Assumptions, Degree
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
        sign = self.identities.keys[party].sign
        return half.answer(self.room.states[party], body, sign, self.identities.verify)

    def sign(self, party: str, text: bytes) -> bytes:
        return self.identities.keys[party].sign(text)


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


def changed(scene: Scene, change: Callable[[Cohort], Cohort]) -> bytes:
    """Return the cohort's message after a change."""
    cohort = Cohort.read(scene.letter, TERMS.digest())
    return change(cohort).body


def with_member(cohort: Cohort, name: str, signed: SignedKeys) -> Cohort:
    members = dict(zip(cohort.names, cohort.signed, strict=True)) | {name: signed}
    return Cohort(tuple(sorted(members)), tuple(members[n] for n in sorted(members)), cohort.degree, cohort.terms)


# Rule 1: keys are signed by whom they say, for this run, round and roster.


@pytest.mark.parametrize("party", NAMES[1:])
def test_a_key_with_a_foreign_signature_is_refused(party: str) -> None:
    scene = at(Stage.KEYS)

    def foreign(cohort: Cohort) -> Cohort:
        old = cohort.signed[cohort.places[party]]
        signature = Ed25519PrivateKey.generate().sign(keys_text(cohort.terms, party, old.keys))
        return with_member(cohort, party, SignedKeys(old.keys, signature))

    with pytest.raises(ProtocolError, match=f"keys of '{party}' are not signed by it"):
        scene.answer(changed(scene, foreign))


def test_a_key_without_a_signature_is_refused() -> None:
    scene = at(Stage.KEYS)

    def unsigned(cohort: Cohort) -> Cohort:
        return with_member(cohort, "c", replace(cohort.signed[2], signature=bytes(64)))

    with pytest.raises(ProtocolError, match="keys of 'c' are not signed by it"):
        scene.answer(changed(scene, unsigned))


def test_a_stranger_in_the_cohort_is_refused() -> None:
    """Somebody whose key is in nobody's list, with a signature of its own."""
    scene = at(Stage.KEYS)
    key = Ed25519PrivateKey.generate()

    def stranger(cohort: Cohort) -> Cohort:
        own = half.Own(b"z" * 32, cohort.terms).public
        grown = with_member(cohort, "zoe", SignedKeys(own, key.sign(keys_text(cohort.terms, "zoe", own))))
        return replace(grown, degree=Degree(8, 6))

    wide = Layout.of_bits(9, 1, bits=32, cohort=8, bound=1.0, largest_weight=10)
    assert isinstance(scene.state, Advertised)
    scene.room.states["a"] = replace(scene.state, terms=replace(TERMS, layout=wide))
    with pytest.raises(ProtocolError, match="keys of 'zoe' are not signed by it"):
        scene.answer(changed(scene, stranger))


def test_keys_of_another_round_run_roster_model_or_app_are_refused() -> None:
    scene = at(Stage.KEYS)
    for other in (
        replace(TERMS, round=2),
        replace(TERMS, attempt=1),
        replace(TERMS, run="lung"),
        replace(TERMS, roster=b"r" * 32),
        replace(TERMS, model=b"m" * 32),
        replace(TERMS, app=b"a" * 32),
        replace(TERMS, assumptions=Assumptions(corrupt=0.0)),
        replace(TERMS, layout=replace(LAYOUT, largest_weight=9)),
    ):
        own = half.Own(b"b" * 32, other.digest()).public
        signed = SignedKeys(own, scene.sign("b", keys_text(other.digest(), "b", own)))
        with pytest.raises(ProtocolError, match="keys of 'b' are not signed by it for this round"):
            scene.answer(changed(scene, lambda cohort, signed=signed: with_member(cohort, "b", signed)))  # type: ignore[misc]
        with pytest.raises(FormatError, match="other terms, another roster, another round"):
            scene.answer(changed(scene, lambda cohort, other=other: replace(cohort, terms=other.digest())))  # type: ignore[misc]


def test_another_roster_than_the_clients_is_refused_before_anything_is_sent() -> None:
    trusting = Client(party="a", floors=Floors(roster=b"r" * 32), past=Past(run="heart"))
    with pytest.raises(ProtocolError, match="this client trusts 7272"):
        half.begin(trusting, TERMS, bytes(32), lambda text: bytes(64))
    half.begin(trusting, replace(TERMS, roster=b"r" * 32), bytes(32), lambda text: bytes(64))
    assert TERMS.roster == NO_ROSTER


def test_a_cohort_in_which_somebody_is_twice_is_refused() -> None:
    scene = at(Stage.KEYS)

    def twice(cohort: Cohort) -> Cohort:
        keys = cohort.signed[2].keys
        return with_member(cohort, "b", SignedKeys(keys, scene.sign("b", keys_text(cohort.terms, "b", keys))))

    with pytest.raises(ProtocolError, match="somebody is there twice"):
        scene.answer(changed(scene, twice))


def test_a_cohort_without_this_client_or_with_other_keys_of_it_is_refused() -> None:
    scene = at(Stage.KEYS)

    def without(cohort: Cohort) -> Cohort:
        return Cohort(cohort.names[1:], cohort.signed[1:], Degree(6, 5), cohort.terms)

    def other(cohort: Cohort) -> Cohort:
        keys = half.Own(b"?" * 32, cohort.terms).public
        return with_member(cohort, "a", SignedKeys(keys, scene.sign("a", keys_text(cohort.terms, "a", keys))))

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
    shown = Delivery(few, {i: letter.sealed[i] for i in few - {0}})
    with pytest.raises(ProtocolError, match="4 members survive, and 5 are needed"):
        scene.answer(shown.to_bytes(scene.room.server.known))


# Rule 3: one unmask request, with disjoint sets that are all who shared, signed by enough.


def survivors(active: str, dead: str) -> Survivors:
    return Survivors(*(frozenset(NAMES.index(name) for name in names) for names in (active, dead)))


def request(scene: Scene, sets: Survivors, signers: str) -> bytes:
    cohort = scene.room.server.known
    signatures = {NAMES.index(name): scene.sign(name, sets.text(cohort)) for name in signers}
    return Request(sets, signatures).to_bytes(cohort)


WRONG_SETS = [
    (survivors("abcdefg", "g"), "'g' is called both active and dead"),
    (survivors("abcdefg", "a"), "'a' is called both active and dead"),
    (survivors("abcdef", ""), "6 active and 0 dead ones are not they"),
    (survivors("bcdefg", "a"), "is not among the survivors"),
    (survivors("abcd", "efg"), "4 members survive, and 5 are needed"),
]


@pytest.mark.parametrize(("sets", "why"), WRONG_SETS)
def test_wrong_survivors_are_neither_signed_nor_answered(sets: Survivors, why: str) -> None:
    scene = at(Stage.VECTORS)
    with pytest.raises(ProtocolError, match=why):
        scene.answer(sets.to_bytes(scene.room.server.known))
    with pytest.raises(ProtocolError, match=why):
        scene.answer(request(scene, sets, "bcdefg" if 0 not in sets.active else "abcdefg"))


@pytest.mark.parametrize("signers", ["", "a", "abcd"])
def test_too_few_signatures_open_nothing(signers: str) -> None:
    scene = at(Stage.AGREEMENT)
    with pytest.raises(ProtocolError, match=f"{len(signers)} survivors have signed .* and 5 are needed"):
        scene.answer(request(scene, survivors("abcdefg", ""), signers))


def test_a_survivors_signature_that_is_not_its_own_opens_nothing() -> None:
    scene = at(Stage.AGREEMENT)
    cohort, sets = scene.room.server.known, survivors("abcdefg", "")
    signatures = {NAMES.index(name): scene.sign(name, sets.text(cohort)) for name in "abcdef"}
    for forged in (
        scene.sign("g", sets.text(cohort)),
        scene.sign("f", survivors("abcdef", "g").text(cohort)),
        bytes(64),
    ):
        with pytest.raises(ProtocolError, match="signature of 'f' on the survivors is not its own"):
            scene.answer(Request(sets, {**signatures, 5: forged}).to_bytes(cohort))


def test_a_signature_of_one_who_has_not_survived_does_not_count() -> None:
    scene = at(Stage.VECTORS)
    sets = survivors("abcdef", "g")
    with pytest.raises(ProtocolError, match="have signed"):
        scene.answer(request(scene, sets, "abcdefg"))
    assert scene.answer(request(scene, sets, "abcde"))[1]


def test_a_second_unmask_request_is_refused_and_the_first_answered_again() -> None:
    """Also where the first set was only signed, and also after the client was killed (its record is all it has)."""
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


@pytest.mark.parametrize("which", ["cipher", "mask"])
def test_a_key_of_low_order_is_refused(which: str) -> None:
    """Its owner has signed it: it wants everybody to know its masks."""
    scene = at(Stage.KEYS)

    def low(cohort: Cohort) -> Cohort:
        keys = replace(cohort.signed[3].keys, **{which: LOW_ORDER})
        return with_member(cohort, "d", SignedKeys(keys, scene.sign("d", keys_text(cohort.terms, "d", keys))))

    body = changed(scene, low)
    if which == "cipher":
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
        scene.room.server.shares[3][1],  # d's share for b
        scene.room.server.shares[2][0],  # c's share for a, said to be d's
        scene.room.server.shares[0][3],  # what a itself has sealed for d
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
        body = Delivery(sharers, {i: s for i, s in delivery.sealed.items() if i in sharers}).to_bytes(cohort)
        if served:
            assert isinstance(half.receive(state, body), Ready)
        else:
            with pytest.raises(
                ProtocolError, match=f"{41 - gone} of those who hold shares of 'c07' have shared, and 31"
            ):
                half.receive(state, body)


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
    sealed = read_shares(shares_message(server.known.transcript, server.shares[1]), server.known)
    assert take(server, "b", shares_message(server.known.transcript, sealed), verify) == server
    with pytest.raises(ProtocolError, match="has said something else before"):
        other = {**sealed, 0: bytes(80)}
        take(server, "b", shares_message(server.known.transcript, other), verify)
    with pytest.raises(ProtocolError, match="deals 5 shares"):
        take(server, "b", shares_message(server.known.transcript, {i: bytes(80) for i in (0, 2, 3, 4, 5)}), verify)
    keys = at(Stage.KEYS)
    foreign = SignedKeys(half.Own(b"?" * 32, TERMS.digest()).public, bytes(64))
    with pytest.raises(ProtocolError, match="are not signed by it"):
        take(keys.room.server, "zoe", foreign.to_bytes(TERMS.digest()), keys.identities.verify)


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
