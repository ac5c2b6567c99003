"""A chain of receipts holds, and nothing of it can be changed, left out, put in or turned round unseen."""

import json
from dataclasses import replace

import pytest
from chains import COORDINATOR, LYON, ROUNDS, browser_key, chain, name, opening, receipt, signed
from hypothesis import given
from hypothesis import strategies as st

from koinon.core.types import Purpose
from koinon.errors import FormatError
from koinon.fleet.wire.receipts import Entry, Opening, Receipt, Sealed, canonical, check_chain, seal
from koinon.fleet.wire.signatures import OwnKey

CHAIN = chain()
TEXTS = [sealed.text().encode() for sealed in CHAIN]
STRANGER = OwnKey(bytes([9]) * 32)


def found(receipts: list[Sealed], start: Opening | None = None) -> list[tuple[int | None, str]]:
    return [(finding.round, finding.what) for finding in check_chain(start or opening(), receipts)]


def read(texts: list[bytes]) -> list[Sealed]:
    """Read receipts as they are kept."""
    try:
        return [Sealed.of_text(text.decode()) for text in texts]
    except UnicodeDecodeError as error:
        raise FormatError(str(error)) from error


def rechained(receipts: list[Receipt]) -> list[Sealed]:
    """Seal receipts as a coordinator would that tells another story and signs it."""
    previous, out = opening().digest(), []
    for own in receipts:
        out.append(seal(replace(own, previous=previous), COORDINATOR))
        previous = out[-1].receipt.digest()
    return out


def test_a_chain_holds_and_survives_being_written_down() -> None:
    assert found(CHAIN) == []
    assert read(TEXTS) == CHAIN
    assert found([]) == []


@given(st.integers(0, sum(map(len, TEXTS)) - 1), st.integers(1, 255))
def test_every_single_changed_byte_is_found(place: int, change: int) -> None:
    texts, at = list(TEXTS), 0
    while place >= len(texts[at]):
        place, at = place - len(texts[at]), at + 1
    text = bytearray(texts[at])
    text[place] ^= change
    texts[at] = bytes(text)
    try:
        changed = read(texts)
    except FormatError:
        return
    assert found(changed)


@pytest.mark.parametrize("bit", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_every_byte_with_one_bit_turned_is_found(bit: int) -> None:
    """All of the middle receipt, exhaustively: no field is outside the signature."""
    for place in range(len(TEXTS[1])):
        text = bytearray(TEXTS[1])
        text[place] ^= 1 << bit
        try:
            changed = read([TEXTS[0], bytes(text), TEXTS[2]])
        except FormatError:
            continue
        assert found(changed), f"byte {place}: {TEXTS[1][place : place + 20]!r}"


@pytest.mark.parametrize("dropped", range(ROUNDS - 1))
def test_a_dropped_receipt_is_found(dropped: int) -> None:
    wrong = found([*CHAIN[:dropped], *CHAIN[dropped + 1 :]])
    assert wrong[0] == (dropped + 2, f"round {dropped + 1} should stand here: a receipt is missing, repeated or out of its order")  # fmt: skip


@pytest.mark.parametrize("place", range(ROUNDS))
def test_a_repeated_receipt_is_found(place: int) -> None:
    assert found([*CHAIN[:place], CHAIN[place], *CHAIN[place:]])


@given(st.permutations(range(ROUNDS)))
def test_receipts_out_of_order_are_found(order: list[int]) -> None:
    assert bool(found([CHAIN[i] for i in order])) == (order != sorted(order))


def test_a_foreign_coordinator_is_found_in_every_round() -> None:
    other = Opening("r-1", name("app"), STRANGER.public)
    wrong = found(CHAIN, other)
    assert [number for number, what in wrong if what == "the signature is not the coordinator's"] == [1, 2, 3]
    assert (1, "it is not chained to this run's opening") in wrong


def test_a_receipt_signed_by_somebody_else_is_found() -> None:
    forged = [*CHAIN[:2], seal(CHAIN[2].receipt, STRANGER)]
    assert found(forged) == [(3, "the signature is not the coordinator's")]


@pytest.mark.parametrize("other", [Opening("r-2", name("app"), COORDINATOR.public), Opening("r-1", name("b"), COORDINATOR.public)])  # fmt: skip
def test_a_chain_of_another_run_or_app_is_found(other: Opening) -> None:
    wrong = found(CHAIN, other)
    assert {number for number, what in wrong if "not to this one" in what} == {1, 2, 3}


def test_the_coordinator_cannot_change_what_a_client_signed() -> None:
    """It can sign any receipt anew, but not the client's commit in it."""
    for change in ({"weight": 31}, {"length_bytes": 901}, {"root": name("other")}, {"signature": bytes(64)}):
        story = [sealed.receipt for sealed in CHAIN]
        entry = story[1].train[0]
        changed = replace(entry, commit=replace(entry.commit, **change))
        story[1] = replace(story[1], train=(changed, *story[1].train[1:]))
        assert found(rechained(story)) == [(2, "lyon (c-1) has not signed the commit listed for train")], change


def test_a_commit_counts_for_its_own_round_purpose_client_and_model_only() -> None:
    story = [sealed.receipt for sealed in CHAIN]
    moved = [
        replace(story[1], train=(story[0].train[0], *story[1].train[1:])),
        replace(story[1], train=(story[1].evaluate[0], *story[1].train[1:])),
        replace(story[1], train=(replace(story[1].train[0], client="c-9"), *story[1].train[1:])),
        replace(story[1], train=(replace(story[1].train[0], key=STRANGER.public), *story[1].train[1:])),
    ]
    for other in moved:
        assert (2, "lyon") in [(number, what.split()[0]) for number, what in found(rechained([story[0], other, story[2]]))]  # fmt: skip
    other_model = replace(story[0], model_before=name("another first model"))
    wrong = found(rechained([other_model, *story[1:]]))
    assert [what.split()[0] for number, what in wrong if number == 1] == ["lyon", "browser"]


def test_a_model_swapped_between_rounds_is_found() -> None:
    story = [sealed.receipt for sealed in CHAIN]
    wrong = found(rechained([story[0], replace(story[1], model_after=name("another")), story[2]]))
    assert wrong == [(3, "its clients trained from another model than the round before it led to")]


def test_a_client_keeps_its_key_and_a_known_key_holds() -> None:
    story = [sealed.receipt for sealed in CHAIN]
    unsigned = replace(story[2].train[0], key=STRANGER.public, commit=None, reason="late")
    swapped = [*story[:2], replace(story[2], train=(unsigned, *story[2].train[1:]))]
    assert (3, "lyon (c-1) stands there with another key than its own") in found(rechained(swapped))
    known = check_chain(opening(), CHAIN, {"c-1": STRANGER.public, "c-2": browser_key()})
    assert {(finding.round, finding.what) for finding in known} == {
        (number, "lyon (c-1) stands there with another key than its own") for number in (1, 2, 3)
    }


def test_who_is_listed_twice_or_accepted_with_nothing_is_refused() -> None:
    own = receipt(1, name("previous"))
    with pytest.raises(FormatError, match="lists a client twice"):
        replace(own, train=(own.train[0], own.train[0]))
    with pytest.raises(FormatError, match="committed nothing"):
        Entry(client="c-1", name="lyon", key=LYON.public, commit=None, reason=None)


def test_the_reason_of_a_client_may_hold_any_text_but_half_a_letter() -> None:
    """Reasons come from clients: one that cannot be written down must not bring the coordinator down later."""
    entry = receipt(1, name("previous")).train[2]
    assert Entry.from_json(json.loads(canonical(replace(entry, reason='é "\n\\ 🙂').to_json()))).reason == 'é "\n\\ 🙂'
    with pytest.raises(FormatError, match="Entry.reason"):
        replace(entry, reason="\ud800")


@pytest.mark.parametrize(
    "change",
    [
        lambda own: own.update(extra=1),
        lambda own: own.pop("aggregate"),
        lambda own: own.update(round=True),
        lambda own: own.update(round=1.0),
        lambda own: own.update(round=-1),
        lambda own: own.update(run=""),
        lambda own: own.update(run="r\n1"),
        lambda own: own.update(app="A" * 64),
        lambda own: own.update(app=own["app"] + "\n"),
        lambda own: own.update(train={}),
        lambda own: own["train"].append(7),
        lambda own: own["train"][0].update(key="abc"),
        lambda own: own["train"][0]["key"].update(kind="rsa"),
        lambda own: own["train"][0]["key"].update(raw="AA"),
        lambda own: own["train"][0]["commit"].update(signature="AA"),
        lambda own: own["train"][0]["commit"].update(signature=None),
        lambda own: own["train"][0]["commit"].update(weight=1.5),
    ],
)
def test_what_is_no_receipt_is_refused_with_one_error(change) -> None:
    value = json.loads(TEXTS[0])
    change(value["receipt"])
    with pytest.raises(FormatError):
        Sealed.from_json(value)


def test_the_same_bytes_in_other_letters_are_refused() -> None:
    """The last letter of 64 bytes has unused bits: a chain that can be written in two ways hides a change."""
    value = json.loads(TEXTS[0])
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = value["signature"][-1]
    value["signature"] = value["signature"][:-1] + letters[letters.index(last) ^ 1]
    with pytest.raises(FormatError, match="base64url"):
        Sealed.from_json(value)


def test_an_evaluation_is_signed_for_the_model_that_was_judged() -> None:
    own = replace(receipt(1, opening().digest()), variables=name("the model alone"), evaluate=())
    own = replace(own, evaluate=(signed(own, Purpose.EVALUATE, "c-1"),))
    assert found([seal(own, COORDINATOR)]) == []
    wrong = found([seal(replace(own, variables=name("model 1")), COORDINATOR)])
    assert wrong == [(1, "lyon (c-1) has not signed the commit listed for evaluate")]


def test_a_receipt_put_in_place_of_another_is_found() -> None:
    """The coordinator signs a second story of round 2: round 3 is chained to the first."""
    other = seal(replace(CHAIN[1].receipt, aggregate=name("another sum")), COORDINATOR)
    assert found([CHAIN[0], other, CHAIN[2]]) == [(3, "it is not chained to the receipt before it")]


def test_what_is_signed_is_the_same_everywhere() -> None:
    """Known answers: another implementation, or a later koinon, must come to the same digests."""
    assert canonical({"b": [1, None], "a": 'é"/\n', "Z": True}) == r"""{"Z":true,"a":"é\"/\n","b":[1,null]}"""
    assert opening().digest() == "22223e377cdd7a44770e5655e4926175c81e52f217d2e49a42445435cff7648e"
    own = receipt(1, opening().digest())  # without the browser's entry: P-256 signs differently each time
    assert replace(own, train=(own.train[0], own.train[2])).digest() == (
        "29914222470c26e2a9a1ace933219816a45a6287b41c7af0559e0fa238f7faa4"
    )
