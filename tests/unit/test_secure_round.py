"""A coordinator's half of a secure sum: it reads itself back from the mailbox, and nobody's stray words move it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import koinon as kn
from koinon.core.types import Purpose
from koinon.fleet.coordinator.ledger import Ledger
from koinon.fleet.coordinator.mailbox import SERVER, Letter, Mailbox
from koinon.fleet.coordinator.members import Member
from koinon.fleet.coordinator.payload import Expected
from koinon.fleet.coordinator.run import Cancelled, FleetRun
from koinon.fleet.coordinator.secure_sum import Office, SecureRound
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.coordinator.stage import StageJob
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.wire.signatures import OwnKey, PublicKey, digest, encoded, signed_text
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Client, Ready, State
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import CODE_BYTES, agreement_message
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.server import Stage, unmask
from koinon.privacy.secure_sum.terms import Floors, Past, Terms
from koinon.privacy.secure_sum.wire import LETTER_BYTES, pieces

KEYS = {f"c-{i}": OwnKey(bytes([i]) * 32) for i in range(1, 6)}
LAYOUT = Layout.of_scale(4, 1, scale=10, cohort=5, bound=1.0, largest_weight=8)


def terms(attempt: int) -> Terms:
    return Terms(run="r-1 train", round=3, attempt=attempt, layout=LAYOUT)


class Party:
    """A client's half over the mailbox of the test."""

    def __init__(self, name: str, office: Office) -> None:
        self.name, self._office, self._state = name, office, None
        self._state: State | None
        self.largest = LETTER_BYTES

    def begin(self, attempt: int = 0) -> None:
        past = Past(run="r-1 train") if self._state is None else self._state.client.past
        client = Client(party=self.name, floors=Floors(), past=past)
        self._state, said = half.begin(client, terms(attempt), os.urandom(32), KEYS[self.name].sign)
        self.post(attempt, Stage.KEYS, said)

    def answer(self, hears: Stage, says: Stage) -> None:
        found = self._office.mailbox.all(self._office.at(0, hears))
        (body,) = [letter.body for letter in found if letter.sender == SERVER and letter.to in ("all", self.name)]
        assert self._state is not None
        self._state, said = half.answer(self._state, body, verify)
        if said is not None:
            self.post(0, says, said)

    def masked(self) -> Vector:
        vector = LAYOUT.encode(np.full(4, 0.5, np.float32), 2, np.array([1.5]))
        assert isinstance(self._state, Ready)
        self._state = half.mask(self._state, vector)
        return vector

    def post(self, attempt: int, stage: Stage, body: bytes) -> None:
        for piece in pieces(body, self.largest):
            self._leave(attempt, stage, piece)

    def _leave(self, attempt: int, stage: Stage, body: bytes) -> None:
        at = self._office.at(attempt, stage)
        text = signed_text("message", at.run, at.round, at.stage, self.name, SERVER, digest(body))
        letter = Letter(SERVER, encoded(body), encoded(KEYS[self.name].sign(text)))
        self._office.mailbox.post(at, self.name, KEYS[self.name].public, letter)


def verify(party: str, text: bytes, signature: bytes) -> bool:
    return KEYS[party].public.signed(signature, text)


def nobody_is_waited_for(step: str, silent: Sequence[str]) -> bool:
    raise AssertionError(f"{step}: {len(silent)} to open the sum")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    public: dict[str, PublicKey] = {name: key.public for name, key in KEYS.items()}
    with FleetStore.open(tmp_path) as store:
        yield Office(Mailbox(store), public, "r-1", 3, Purpose.TRAIN)


@pytest.fixture
def parties(office: Office) -> list[Party]:
    return [Party(name, office) for name in KEYS]


def test_one_that_starts_again_at_every_step_comes_to_the_same_sum(office: Office, parties: list[Party]) -> None:
    new = partial(SecureRound, office, terms, 3)
    for party in parties:
        party.begin()
    assert not new().turn(KEYS, 60.0, 0.0)
    for party in parties:
        party.answer(Stage.KEYS, Stage.SHARES)
    assert not new().turn(KEYS, 60.0, 0.0)
    total = LAYOUT.zero()
    for party in parties[:4]:  # the last has shared, and falls silent
        party.answer(Stage.SHARES, Stage.SHARES)
        total += party.masked()
    survivors = [party.name for party in parties[:4]]
    for hears, says in ((Stage.VECTORS, Stage.AGREEMENT), (Stage.AGREEMENT, Stage.UNMASKING)):
        with pytest.raises(AssertionError, match="to open the sum"):
            new().opened(survivors, nobody_is_waited_for)
        for party in parties[:4]:
            party.answer(hears, says)
    server = new().opened([], nobody_is_waited_for)  # who survived is in the mailbox
    unmask(server, total)
    found = LAYOUT.decode(total)
    assert (found.update.tolist(), found.weight, found.sums.tolist()) == ([4 * 2 * 512] * 4, 8, [6.0])


def come_to_vectors(secure: SecureRound, parties: list[Party]) -> None:
    """Let everybody mask."""
    for party in parties:
        party.begin()
    secure.turn(KEYS, 60.0, 0.0)
    for party in parties:
        party.answer(Stage.KEYS, Stage.SHARES)
    secure.turn(KEYS, 60.0, 0.0)
    for party in parties:
        party.answer(Stage.SHARES, Stage.SHARES)
        party.masked()


def test_wrong_codes_of_one_that_is_quick_stop_nobody(office: Office, parties: list[Party]) -> None:
    """The coordinator cannot tell them from right ones: enough right ones have to be among those that it relays."""
    secure, (liar, *honest) = SecureRound(office, terms, 3, 60.0), parties
    come_to_vectors(secure, parties)
    cohort = secure._server.known
    liar_says = agreement_message(cohort, b"?" * 5 * CODE_BYTES)
    steps = []

    def wait(step: str, silent: Sequence[str]) -> bool:
        steps.append((step, len(silent)))
        if len(steps) == 1:
            liar.post(0, Stage.AGREEMENT, liar_says)
            for party in honest[:3]:
                party.answer(Stage.VECTORS, Stage.AGREEMENT)
        elif len(steps) == 2:
            honest[3].answer(Stage.VECTORS, Stage.AGREEMENT)
        else:
            for party in honest:
                party.answer(Stage.AGREEMENT, Stage.UNMASKING)
        return len(steps) < 9

    assert secure.opened(KEYS, wait) is not None
    assert steps == [("agreement", 5), ("agreement", 0), ("unmasking", 5)], (
        "whose word is not needed makes nothing void"
    )


def test_who_does_not_agree_is_waited_for_a_quarter_of_the_least_time(office: Office, parties: list[Party]) -> None:
    secure = SecureRound(office, terms, 3, 2.0)
    come_to_vectors(secure, parties)
    steps = []

    def wait(step: str, silent: Sequence[str]) -> bool:
        time.sleep(0.05)
        steps.append(step)
        if len(steps) == 1 or step == "unmasking":
            for party in parties[:4]:
                hears, says = list(Stage)[2:4] if step == "agreement" else list(Stage)[3:5]
                party.answer(hears, says)
        return len(steps) < 100

    assert secure.opened(KEYS, wait) is not None
    assert 5 < steps.count("agreement") <= 12


def test_long_messages_come_in_pieces_in_whatever_order(office: Office, parties: list[Party]) -> None:
    secure = SecureRound(office, terms, 3)
    for party in parties:
        party.largest = 128
    come_to_vectors(secure, parties)
    assert secure.sharers == set(KEYS)
    left = office.mailbox.all(office.at(0, Stage.SHARES))
    assert len([letter for letter in left if letter.sender == "c-1"]) > 3
    assert SecureRound(office, terms, 3).sharers == set(KEYS)


def test_pieces_of_two_messages_are_none_and_stop_nobody_else(office: Office, parties: list[Party]) -> None:
    for party in parties[1:]:
        party.begin()
    for piece in (*pieces(b"a" * 200, 128), *pieces(b"b" * 200, 128)):
        parties[0].post(0, Stage.KEYS, piece)
    secure = SecureRound(office, terms, 3)
    secure.turn(KEYS, 60.0, 0.0)
    secure.turn(KEYS, 45.0, 16.0)
    assert secure.least == 3


def test_stages_that_clients_name_are_no_attempts(office: Office, parties: list[Party]) -> None:
    parties[0].post(77, Stage.KEYS, b"x")
    parties[0].post(2**40, Stage.SHARES, b"x")
    assert SecureRound(office, terms, 3).attempt == 0


def test_when_too_few_share_everybody_begins_anew(office: Office, parties: list[Party]) -> None:
    for party in parties:
        party.begin()
    secure = SecureRound(office, terms, 3)
    assert not secure.turn(KEYS, 60.0, 0.0)
    assert secure.least == 4
    for party in parties[:3]:
        party.answer(Stage.KEYS, Stage.SHARES)
    assert not secure.turn(KEYS, 60.0, 1.0)
    assert secure.turn(KEYS, 46.0, 17.0), "a quarter of the time is over"
    assert (secure.attempt, secure.least) == (1, None)
    for party in parties:
        party.begin(1)
    assert not secure.turn(KEYS, 60.0, 18.0)
    assert SecureRound(office, terms, 3).attempt == 1


def test_those_who_are_left_while_shares_are_dealt_begin_anew(
    office: Office, parties: list[Party], tmp_path: Path
) -> None:
    """Of five that sent keys four must share. Two are revoked; three are enough to begin with, so the round is not void."""
    for party in parties:
        party.begin()
    secure = SecureRound(office, terms, 3)
    expected = Expected.of(kn.fedavg(kn.sgd(0.1)), {"params": {"w": np.ones(1, np.float32)}})
    job = StageJob(
        3,
        Purpose.TRAIN,
        "a" * 64,
        100,
        5,
        lambda client: np.zeros(2, np.uint32),
        expected,
        3,
        newcomers=False,
        secure=secure,
    )
    with FleetStore.open(tmp_path / "run") as store:
        ledger, schedule = Ledger(store, "r-1"), kn.Synchronous(clients=3, shortest=60.0, longest=60.0)
        run = FleetRun("r-1", schedule, ledger, Spool(ledger.folder / "spool"), time.monotonic)
        for name in KEYS:
            run.join(Member(name, name, 4, 0))

        def drive() -> None:
            with suppress(Cancelled):
                run.settled(job, list(KEYS), [])

        thread = threading.Thread(target=drive)
        thread.start()
        ends = time.monotonic() + 20
        while secure.least is None and time.monotonic() < ends:
            time.sleep(0.01)
        for party in parties[:3]:
            party.answer(Stage.KEYS, Stage.SHARES)
        run.revoke("c-4")
        run.revoke("c-5")
        while thread.is_alive() and secure.attempt == 0 and time.monotonic() < ends:
            time.sleep(0.01)
        open_still, attempt = run.snapshot()[0].stage is not None, secure.attempt
        run.cancel()
        thread.join(10)
    assert (open_still, attempt) == (True, 1)


def test_what_is_no_message_is_left_out(office: Office, parties: list[Party]) -> None:
    for party in parties[1:]:
        party.begin()
    parties[0].post(0, Stage.KEYS, b"no keys")
    secure = SecureRound(office, terms, 3)
    assert not secure.turn(KEYS, 60.0, 0.0)
    assert secure.least is None, "the fifth may still send its own"
    assert not secure.turn(KEYS, 40.0, 16.0)
    assert secure.least == 3
