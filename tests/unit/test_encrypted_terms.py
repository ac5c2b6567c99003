"""What a client insists on before it encrypts, whatever its coordinator asks: each a way to a single update."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import koinon as kn
from koinon.core.types import Purpose
from koinon.errors import ClientError, ProtocolError
from koinon.fleet.keyholder.office import Office
from koinon.fleet.participant.encrypted import Seal
from koinon.fleet.participant.secure_sum import Place
from koinon.fleet.wire.encrypted_terms import ATTEMPTS, round_of
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.encrypted_sum.ciphertexts import EncryptedSum
from koinon.privacy.encrypted_sum.client import encrypted
from koinon.privacy.encrypted_sum.holder import Request
from koinon.privacy.encrypted_sum.packing import Totals
from koinon.privacy.encrypted_sum.pads import Round
from koinon.privacy.encrypted_sum.shares import Share, together

pytest.importorskip("tenseal", reason="needs koinon[he]")

PARTIES = [OwnKey(bytes([i]) * 32) for i in range(1, 5)]
MODEL = {"w": np.arange(5, dtype=np.float32)}
UPDATES = [np.full(5, 0.1 * (i + 1), np.float32) for i in range(len(PARTIES))]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """A key holder of its own memory, with a floor of three."""
    return Office.open(tmp_path / "keys", 3, None)


def asked(office: Office, attempt: int, *, round: int = 1, model: Any = MODEL, least: int = 3) -> Round:
    """Return the round that a client makes of a coordinator's words."""
    step = kn.Encrypted(key=office.public.fingerprint.hex(), fraction_bits=10, largest_weight=1, least=least, figures=1)
    algorithm = kn.fedavg(channel=(kn.Clip(1.0), step))
    return round_of(algorithm, "r", round, Purpose.TRAIN, attempt, value=model, cohort=4, keys=(office.public,))


def answered(office: Office, rounds: list[Round]) -> Totals:
    """Return what the first parties' sum decrypts to, each of which was told its own round; asked for as the first one's."""
    total, pads = EncryptedSum(rounds[0]), []
    for party, round, update in zip(PARTIES, rounds, UPDATES, strict=False):
        sent = encrypted(round, [office.public], party.public.text, (update, 1, (0.0,)), party.sign)
        total.add(
            sent.update.replace(round.digest, rounds[0].digest, 1)
        )  # a ciphertext says nothing about what it is for
        pads.append(sent.pads[0])
    blinded = total.blinded(bytes(32))
    body = office.answer(Request(rounds[0], tuple(pads), blinded.total).to_bytes())
    return together(rounds[0], len(pads), blinded.share, [Share.from_bytes(body, rounds[0].parameters)])


def test_an_attempt_that_is_not_of_its_round_is_refused(office: Office) -> None:
    """Attempt -1 of a round bears a number of the round before, and would be a second sum of the same updates."""
    for attempt in (-1, -ATTEMPTS, ATTEMPTS):
        with pytest.raises(ProtocolError, match="has attempts from 0"):
            asked(office, attempt, round=2)
    assert [asked(office, attempt).number for attempt in (0, ATTEMPTS - 1)] == [ATTEMPTS, 2 * ATTEMPTS - 1]
    answered(office, [asked(office, 0)] * 4)
    with pytest.raises(Refusal, match="there is one of each"):
        answered(office, [asked(office, 1)] * 3)


def test_who_was_shown_another_model_is_in_no_sum(office: Office) -> None:
    """A model that teaches nothing makes of everybody else's update a zero, and of a sum the update of one."""
    own, other = asked(office, 0), asked(office, 0, model={"w": np.full(5, -1e9, np.float32)})
    with pytest.raises(Refusal, match="has not signed this round"):
        answered(office, [own, other, other])
    same = asked(office, 0, model={"w": MODEL["w"].copy()})
    assert answered(office, [own, same, same]).clients == 3


def test_a_key_that_decrypts_the_sums_of_fewer_clients_than_the_app_wants_is_refused(office: Office) -> None:
    with pytest.raises(ProtocolError, match="adds up at least 4 clients, and a key holder decrypts sums of 3"):
        asked(office, 0, least=4)
    asked(office, 0, least=2)


def test_a_participants_floor_is_the_keys(office: Office) -> None:
    """A coordinator may say that a hundred are asked, and have three of them added up."""
    key, step = office.public.to_bytes(), kn.Encrypted(key=office.public.fingerprint.hex(), fraction_bits=10)
    algorithm, place = kn.fedavg(channel=(kn.Clip(1.0), step)), Place("r", 1, Purpose.TRAIN, 0)
    connection: Any = SimpleNamespace(size=lambda name: len(key), download=lambda name, size: key)
    Seal(connection, PARTIES[0], 3).opened(algorithm, place, MODEL, 100)
    with pytest.raises(ProtocolError, match="sums of 3 clients, and this participant's floor is 4"):
        Seal(connection, PARTIES[0], 4).opened(algorithm, place, MODEL, 100)


@pytest.mark.parametrize(
    ("weight", "figure", "why"),
    [(31_337, 0.0, "its weight is no"), (1, 3.1337e30, "a metric sum is"), (1, -3.1337e30, "sum is")],
)
def test_what_a_client_refuses_says_nothing_of_its_numbers(
    office: Office, weight: int, figure: float, why: str
) -> None:
    """Its coordinator hears why, and has chosen the model that these numbers are of."""
    round, party = asked(office, 0), PARTIES[0]
    with pytest.raises(ClientError, match=why) as refused:
        encrypted(round, [office.public], party.public.text, (UPDATES[0], weight, (figure,)), party.sign)
    assert "1337" not in str(refused.value)
