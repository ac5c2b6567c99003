"""Several key holders: what each writes down, what none lets out alone, and what a coordinator makes of their answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koinon.errors import FormatError, StoreError
from koinon.fleet.coordinator.key_holder import Silent, Terms
from koinon.fleet.coordinator.key_holders import KeyHolders, found
from koinon.fleet.keyholder import office as room
from koinon.fleet.keyholder.office import Office
from koinon.fleet.wire.encrypted_terms import ATTEMPTS
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.encrypted_sum.ciphertexts import Blinded, EncryptedSum
from koinon.privacy.encrypted_sum.client import Sent, encrypted
from koinon.privacy.encrypted_sum.holder import Request
from koinon.privacy.encrypted_sum.packing import Totals
from koinon.privacy.encrypted_sum.pads import Pad, Round
from koinon.privacy.encrypted_sum.parameters import DEGREE, Parameters
from koinon.privacy.secure_sum.roster import Roster

pytest.importorskip("tenseal", reason="needs koinon[he]")

PARTIES = [OwnKey(bytes([i]) * 32) for i in range(1, 5)]
PARAMETERS = Parameters(cohort=4, bound=1.0, largest_weight=8, scale=10, values=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with the keys of two holders that have decrypted nothing."""
    folders = [tmp_path_factory.mktemp(name) for name in ("athens", "delos")]
    for folder in folders:
        Office.open(folder, 3, None)
    return folders


@pytest.fixture
def folders(made: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of them."""
    copies = [tmp_path / folder.name for folder in made]
    for folder, copy in zip(made, copies, strict=True):
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
    return copies


class Reached:
    """A key holder as a coordinator reaches it, without a wire; ``meddle`` may change what it answers, or raise."""

    def __init__(
        self, office: Office, name: str, meddle: Callable[[str, bytes], bytes] = lambda _, answer: answer
    ) -> None:
        self.office, self.name, self.meddle, self.asked = office, name, meddle, []

    def __str__(self) -> str:
        return self.name

    def count(self, body: bytes) -> bytes:
        """Answer for its share of a count."""
        self.asked.append(("count", body))
        return self.meddle("count", self.office.count(body))

    def sum(self, body: bytes, most: int) -> bytes:
        """Answer for its share of a sum."""
        self.asked.append(("sum", body))
        answer = self.meddle("sum", self.office.answer(body))
        assert len(answer) <= most
        return answer


def offices(folders: list[Path], *, second: Roster | None = None) -> list[Office]:
    """Return both holders' offices, as processes that start have them."""
    return [Office.open(folder, 3, roster) for folder, roster in zip(folders, (None, second), strict=True)]


def together(own: list[Office]) -> tuple[KeyHolders, list[Reached]]:
    """Return what a coordinator has of them."""
    reached: list[Any] = [Reached(office, name) for office, name in zip(own, ("athens", "delos"), strict=True)]
    return KeyHolders(tuple(reached), tuple(office.public for office in own)), reached


def sent(own: list[Office], round: int, attempt: int = 0, keys: list[OwnKey] = PARTIES) -> tuple[Round, list[Sent]]:
    """Return what some parties send of an attempt at a round."""
    holders = [office.public for office in own]
    fingerprints = tuple(holder.fingerprint for holder in holders)
    this = Round(run="r train", number=round * ATTEMPTS + attempt, parameters=PARAMETERS, keys=fingerprints)
    numbers = np.full(5, 0.5, np.float32), 2, ()
    return this, [encrypted(this, holders, key.public.text, numbers, key.sign) for key in keys]


def added(round: Round, parts: list[Sent]) -> Blinded:
    """Return the sum of what some have sent."""
    total = EncryptedSum(round)
    for one in parts:
        total.add(one.update)
    return total.blinded(bytes(32))


def total(holders: KeyHolders, round: Round, parts: list[Sent], summed: list[Sent] | None = None) -> Totals:
    """Return what a coordinator learns of these parts."""
    return holders.total(round, [one.pads for one in parts], added(round, parts if summed is None else summed))


def request(round: Round, parts: list[Sent], place: int) -> bytes:
    """Return what the holder at a place is asked."""
    own = tuple(one.pads[place] for one in parts)
    return Request(round, own, b"" if place else added(round, parts).total).to_bytes()


def test_the_shares_of_both_are_the_sum_and_each_is_asked_to_count_before_either_lets_out(folders: list[Path]) -> None:
    holders, reached = together(offices(folders))
    round, parts = sent([one.office for one in reached], 1)
    totals = total(holders, round, parts)
    assert (totals.clients, totals.weight, totals.values.tolist()) == (4, 8, [4096] * 5)
    for place, one in enumerate(reached):
        assert [what for what, _ in one.asked] == ["count", "sum"]
        assert len({body for _, body in one.asked}) == 1, "the same request twice"
        assert (len(one.asked[0][1]) > 8 * DEGREE) is (place == 0), "no other holder gets ciphertexts"


def test_what_does_not_add_up_is_begun_anew_and_neither_has_let_anything_out(folders: list[Path]) -> None:
    holders, reached = together(own := offices(folders))
    round, parts = sent(own, 1)
    with pytest.raises(Refusal, match="is not the sum of these 4 clients") as refused:
        total(holders, round, parts, parts[1:])
    assert refused.value.code == "spoiled"
    assert [what for one in reached for what, _ in one.asked] == ["count", "count"]
    again, reached = together(own := offices(folders))
    with pytest.raises(Refusal) as over:
        total(again, round, parts)  # the same number under another request
    assert over.value.code == "spoiled"
    later, fewer = sent(own, 1, 1, PARTIES[:3])
    assert total(again, later, fewer).clients == 3


def test_a_round_of_which_a_share_was_let_out_has_no_other_sum(folders: list[Path]) -> None:
    own = offices(folders)
    round, parts = sent(own, 1)
    own[1].answer(request(round, parts, 1))
    for office in (own[1], offices(folders)[1]):
        for attempt, keys in ((0, PARTIES[:3]), (1, PARTIES), (1, PARTIES[:3])):
            later, others = sent(own, 1, attempt, keys)
            for ask in (office.count, office.answer):
                with pytest.raises(Refusal) as refused:
                    ask(request(later, others, 1))
                assert refused.value.code in ("refused", "spoiled")
        assert office.answer(request(round, parts, 1)) == own[1].answer(request(round, parts, 1))
    holders, _ = together(offices(folders))
    assert total(holders, round, parts).clients == 4, "the same sum is let out after a restart"


@pytest.mark.parametrize(("when", "let_out"), [("answered.json", "count"), ("released.json", "sum")])
def test_nothing_is_said_that_could_not_be_written_down(
    when: str, let_out: str, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, write = offices(folders), room._write
    round, parts = sent(own, 1)

    def full(path: Path, data: bytes) -> None:
        if path.name == when:
            raise StoreError("no room")
        write(path, data)

    monkeypatch.setattr(room, "_write", full)
    for place, office in enumerate(own):
        ask = office.count if let_out == "count" else office.answer
        with pytest.raises(StoreError, match="no room"):
            ask(request(round, parts, place))


def test_each_holder_keeps_its_own_floor_and_list(folders: list[Path]) -> None:
    members = {f"p{i}": key.public.text for i, key in enumerate(PARTIES[:3])}
    holders, reached = together(own := offices(folders, second=Roster(federation="south", members=members)))
    with pytest.raises(Refusal, match="no crowd"):
        total(holders, *sent(own, 1, 0, PARTIES[:2]))
    with pytest.raises(Refusal, match="is not on the key holder's list") as refused:
        total(holders, *sent(own, 1))
    assert refused.value.code == "refused"
    assert {what for one in reached for what, _ in one.asked} == {"count"}, "athens has let nothing out"
    assert total(holders, *sent(own, 1, 1, PARTIES[:3])).clients == 3


def test_a_holder_that_breaks_its_word_is_waited_for_and_named(folders: list[Path]) -> None:
    holders, reached = together(own := offices(folders))
    round, parts = sent(own, 1)

    def refuse(what: str, answer: bytes) -> bytes:
        if what == "sum":
            raise Refusal(409, "spoiled", "delos, which refuses: something")
        return answer

    def other(what: str, answer: bytes) -> bytes:
        return answer if what == "count" else answer[: 8 - 8 * DEGREE] + bytes(8) + answer[16 - 8 * DEGREE :]

    def cut(what: str, answer: bytes) -> bytes:
        return answer[:-1]

    def wrong(what: str, answer: bytes) -> bytes:
        return answer if what == "count" else answer[: -8 * DEGREE] + bytes(8) + answer[8 - 8 * DEGREE :]

    for meddle, error, match in (
        (refuse, Silent, "a share that was promised: delos"),
        (cut, FormatError, "delos: A share has"),
        (wrong, FormatError, "is not the sum"),
    ):
        reached[1].meddle = meddle
        with pytest.raises(error, match=match):
            total(holders, round, parts)
    reached[1].meddle = other  # one number is changed: nobody can tell, and docs/encrypted-sum.md says so
    assert total(holders, round, parts).values.tolist() != [4096] * 5
    reached[1].meddle = lambda _, answer: answer
    assert total(holders, round, parts).values.tolist() == [4096] * 5


def test_holders_are_found_by_their_keys_whichever_link_leads_to_which(folders: list[Path]) -> None:
    own = offices(folders)
    pinned = [office.public.fingerprint.hex() for office in own]
    said: list[str] = []

    class Link:
        def __init__(self, office: Office | None) -> None:
            self._office, self.forgotten = office, 0

        def terms(self) -> Terms:
            if self._office is None:
                raise Silent("the key holder at nowhere")
            return Terms(self._office.public, None)

        def forget(self) -> None:
            self.forgotten += 1

    links: list[Any] = [Link(own[1]), Link(own[0])]
    assert found(links, pinned, None, said.append) == KeyHolders((links[1], links[0]), (own[0].public, own[1].public))
    assert found([*links, Link(None)], pinned, None, said.append) is not None, "who is not of the app may be away"
    assert said == []
    assert found([links[0], Link(None)], pinned, None, said.append) is None
    assert found(links[:1], pinned, None, said.append) is None
    assert said == [
        "the key holder at nowhere",
        f"the key holder of the app, whose key is {pinned[0]}: at --keyholder is {pinned[1]}",
    ]
    assert links[0].forgotten == 1


def test_a_holder_that_is_given_no_sum_makes_no_room_for_a_huge_one(folders: list[Path]) -> None:
    own = offices(folders)
    huge = Parameters(cohort=4, bound=1.0, largest_weight=4096, scale=20, values=1 << 32)
    fingerprints = tuple(office.public.fingerprint for office in own)
    round = Round(run="r train", number=ATTEMPTS, parameters=huge, keys=fingerprints)
    pads = [Pad.fresh().sealed(round, key.public.text, own[1].public, key.sign) for key in PARTIES]
    body = Request(round, tuple(pads), b"").to_bytes()
    for ask in (own[1].count, own[1].answer):
        with pytest.raises(FormatError, match="A sum has at most"):
            ask(body)
    assert not own[1]._answered.rounds, "nothing was written down of it"
