"""A key holder's folder: keys made once, one sum a round for ever, whatever is restarted or asked for twice."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from koinon.errors import ConfigurationError, FormatError, StoreError
from koinon.fleet.keyholder import office as room
from koinon.fleet.keyholder.office import Office
from koinon.fleet.wire.encrypted_terms import ATTEMPTS, PAD_BYTES, HolderLink
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.encrypted_sum.ciphertexts import Blinded, EncryptedSum
from koinon.privacy.encrypted_sum.client import Sent, encrypted
from koinon.privacy.encrypted_sum.holder import Request
from koinon.privacy.encrypted_sum.pads import Round
from koinon.privacy.encrypted_sum.parameters import INTEGER_BITS, Parameters
from koinon.privacy.encrypted_sum.shares import Share, together
from koinon.privacy.secure_sum.roster import Roster

pytest.importorskip("tenseal", reason="needs koinon[he]")

PARTIES = [OwnKey(bytes([i]) * 32) for i in range(1, 5)]
PARAMETERS = Parameters(cohort=4, bound=1.0, largest_weight=8, scale=10, values=5)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys that have decrypted nothing."""
    folder = tmp_path_factory.mktemp("keyholder")
    Office.open(folder, 3, None)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for path in kept.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def sent(office: Office, round: int, attempt: int, keys: list[OwnKey]) -> tuple[Round, list[Sent]]:
    """Return what some parties send of an attempt at a round."""
    number = round * ATTEMPTS + attempt
    own = Round(run="r train", number=number, parameters=PARAMETERS, keys=(office.public.fingerprint,))
    numbers = np.full(5, 0.5, np.float32), 2, ()
    return own, [encrypted(own, [office.public], key.public.text, numbers, key.sign) for key in keys]


def blinded(round: Round, summed: list[Sent]) -> Blinded:
    """Return the sum of some."""
    total = EncryptedSum(round)
    for one in summed:
        total.add(one.update)
    return total.blinded(bytes(32))


def counted(answer: bytes) -> int:
    """Return how many clients an answer counts."""
    (word,) = Share.from_bytes(answer, PARAMETERS).count.words
    return round(int(word) / (1 << (INTEGER_BITS - PARAMETERS.plain_bits)))


def asked(round: Round, named: list[Sent], summed: list[Sent]) -> bytes:
    """Return the request that names some, with the sum of some."""
    return Request(round, tuple(one.pads[0] for one in named), blinded(round, summed).total).to_bytes()


def request(office: Office, round: int, attempt: int = 0, keys: list[OwnKey] = PARTIES) -> bytes:
    """Return an honest request."""
    own, found = sent(office, round, attempt, keys)
    return asked(own, found, found)


def spoiled(office: Office, round: int, attempt: int = 0) -> bytes:
    """Return a request whose sum lacks a party."""
    own, found = sent(office, round, attempt, PARTIES)
    return asked(own, found, found[1:])


def code(office: Office, body: bytes) -> str:
    """Return what a request is refused as."""
    with pytest.raises(Refusal) as caught:
        office.answer(body)
    return caught.value.code


def test_the_same_request_has_the_same_answer_also_after_a_restart(folder: Path) -> None:
    own, parts = sent(first := Office.open(folder, 3, None), 1, 0, PARTIES)
    body = asked(own, parts, parts)
    answer = first.answer(body)
    totals = together(own, 4, blinded(own, parts).share, [Share.from_bytes(answer, PARAMETERS)])
    assert (totals.clients, totals.weight) == (4, 8)
    np.testing.assert_array_equal(totals.values, 4 * 2 * 512)
    assert first.answer(body) == answer == Office.open(folder, 3, None).answer(body)


def test_a_round_whose_sum_was_let_out_has_no_other(folder: Path) -> None:
    office = Office.open(folder, 3, None)
    office.answer(request(office, 1))
    for attempt in (0, 1, 7):
        assert code(office, request(office, 1, attempt, PARTIES[:3])) == "refused"
    again = Office.open(folder, 3, None)
    assert code(again, request(again, 1, 1, PARTIES[:3])) == "refused"
    assert code(again, request(again, 0, 9)) == "refused"
    again.answer(request(again, 2))


def test_what_was_spoiled_is_over_and_the_round_is_asked_for_under_another_number(folder: Path) -> None:
    office = Office.open(folder, 3, None)
    body = spoiled(office, 1)
    assert code(office, body) == "spoiled"
    again = Office.open(folder, 3, None)
    assert code(again, body) == code(again, request(again, 1)) == "spoiled"
    assert counted(again.answer(request(again, 1, 1))) == 4
    assert code(again, body) == "refused"


@pytest.mark.parametrize("when", ["answered.json", "released.json"])
def test_nothing_is_let_out_that_could_not_be_written_down(
    when: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, write = Office.open(folder, 3, None), room._write
    body, other = request(office, 1), request(office, 1, 0, PARTIES[:3])

    def full(path: Path, data: bytes) -> None:
        if path.name == when:
            raise StoreError("no room")
        write(path, data)

    monkeypatch.setattr(room, "_write", full)
    for _ in range(2):
        with pytest.raises(StoreError, match="no room"):
            office.answer(body)
    monkeypatch.undo()
    again = Office.open(folder, 3, None)
    if when == "released.json":  # it has decrypted this one, so it will not decrypt that one
        assert code(again, other) == "spoiled"
    assert again.answer(body) == office.answer(body)


def test_few_strangers_and_the_unsigned_are_refused(folder: Path) -> None:
    open_to_all = Office.open(folder, 3, None)
    assert code(open_to_all, request(open_to_all, 1, 0, PARTIES[:2])) == "refused"
    members = {f"p{i}": key.public.text for i, key in enumerate(PARTIES[:3])}
    office = Office.open(folder, 3, Roster(federation="south", members=members))
    assert code(office, request(office, 1)) == "refused"
    own, found = sent(office, 1, 0, PARTIES[:3])
    pad = found[0].pads[0]
    forged = Sent(found[0].update, (type(pad)(PARTIES[1].public.text, pad.sealed, pad.signature),))
    assert code(office, asked(own, [forged, *found[1:]], found)) == "refused"
    assert counted(office.answer(asked(own, found, found))) == 3


def test_the_keys_are_made_once_and_readable_for_their_owner_alone(folder: Path) -> None:
    assert Office.open(folder, 3, None).public == Office.open(folder, 3, None).public
    with pytest.raises(ConfigurationError, match="The floor is part of the key"):
        Office.open(folder, 4, None)
    (folder / "answered.json").unlink()
    with pytest.raises(StoreError, match="Restore the whole folder"):
        Office.open(folder, 3, None)
    (folder / "answered.json").write_text('{"format": 1, "rounds": {}}')
    Office.open(folder, 3, None)
    for damaged in ("", "[]", '{"r train": "many"}'):
        (folder / "released.json").write_text(damaged)
        with pytest.raises(StoreError, match="Restore the whole folder"):
            Office.open(folder, 3, None)


def test_secrets_are_for_their_owner(kept: Path) -> None:
    assert stat.S_IMODE((kept / "secret.key").stat().st_mode) == 0o600


def test_anything_else_is_no_request(folder: Path) -> None:
    office = Office.open(folder, 3, None)
    body = request(office, 1)
    for wrong in (b"", b"{}", body[:-1], body + b"\0"):
        with pytest.raises(FormatError):
            office.answer(wrong)
    office.answer(body)


def test_a_pad_has_the_length_that_is_expected(folder: Path) -> None:
    _, (one, *_) = sent(Office.open(folder, 3, None), 1, 0, PARTIES[:1])
    assert len(one.pads[0].to_bytes()) == PAD_BYTES


def test_a_link_is_read_as_it_is_printed() -> None:
    link = HolderLink("https://keys.example.org:8444", "5e", "ab" * 32)
    assert HolderLink.parse(str(link)) == link
    for wrong in ("", "https://h:1", "http://h:1/keyholder#token=5e", "https://h:1/keyholder#token=5e"):
        with pytest.raises(ConfigurationError, match="koinon keyholder has printed"):
            HolderLink.parse(wrong)
