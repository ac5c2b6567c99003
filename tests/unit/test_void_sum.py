"""A secure sum that was given up is never opened: who begins a later one has nothing left to open it with."""

from __future__ import annotations

import re
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koinon.core.types import Purpose
from koinon.errors import FormatError, ProtocolError
from koinon.fleet.coordinator.mailbox import MESSAGE_BYTES, Letter, Mailbox
from koinon.fleet.coordinator.secure_sum import Office, SecureRound
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.participant.keep import Keep
from koinon.fleet.participant.secure_sum import Place, SecureSums
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey, encoded
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Client, Masked, Ready
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.saved import from_bytes
from koinon.privacy.secure_sum.server import Stage
from koinon.privacy.secure_sum.terms import Terms
from koinon.privacy.secure_sum.wire import Kind, header, joined

RUN = "r-1"
NAMES = tuple(f"c-{i}" for i in range(1, 6))
LAYOUT = Layout.of_scale(4, 1, scale=10, cohort=5, bound=1.0, largest_weight=8)
_PATH = re.compile(r"/v1/runs/r-1/rounds/(\d+)/stages/([\w-]+)/messages(?:\?since=(\d+)&wait=\d+)?")


@dataclass
class World:
    """One mailbox, and what every participant is told of the others. ``mailbox`` may be changed for another's."""

    mailbox: Mailbox
    keys: dict[str, PublicKey]

    def office(self, round: int, purpose: Purpose = Purpose.TRAIN) -> Office:
        return Office(self.mailbox, self.keys, RUN, round, purpose)


class Line:
    """A participant's connection: the mailbox itself."""

    def __init__(self, world: World, client: str) -> None:
        self._world, self._client = world, client
        self.left: list[str] = []  # the stages in which something was left

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if path.endswith("/clients"):
            keys = self._world.keys.items()
            return {"clients": [{"client": c, "kind": k.kind.value, "key": encoded(k.raw)} for c, k in keys]}
        found = _PATH.fullmatch(path)
        assert found is not None, path
        at = self._world.office(int(found[1])).at(0, Stage.KEYS)
        at = type(at)(RUN, int(found[1]), found[2])
        if method == "POST":
            self.left.append(found[2])
            return self._world.mailbox.post(at, self._client, self._world.keys[self._client], Letter(**body))
        letters = self._world.mailbox.read(at, self._client, int(found[3]))
        time.sleep(0 if letters else 0.02)  # instead of the long poll
        return {"messages": letters, "next": letters[-1]["number"] if letters else int(found[3])}


class Party:
    """A participant's secure sums, with its own disk."""

    def __init__(self, world: World, keep: Keep, name: str) -> None:
        self.name, self.keep, self.line = name, keep, Line(world, name)
        self.sums = SecureSums(self.line, keep, name, 3, None)  # type: ignore[arg-type]

    def mask(self, place: Place) -> None:
        """Come as far as a masked vector that may leave."""
        purpose = place.purpose.value
        terms = Terms(run=f"{RUN} {purpose}", round=place.round, attempt=place.attempt, layout=LAYOUT)
        ready = self.sums.prepared(place, terms, lambda: True)
        assert isinstance(ready, Ready)
        vector = LAYOUT.encode(np.full(4, 0.5, np.float32), 2, np.array([1.5]))
        self.sums.write(place, self.sums.masked(ready, vector))

    def record(self, purpose: Purpose = Purpose.TRAIN) -> Any:
        kept = self.keep.secure_sum(RUN, purpose.value)
        return None if kept is None else from_bytes(kept)


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[tuple[World, list[Party]]]:
    keeps = {name: Keep(tmp_path / name) for name in NAMES}
    with FleetStore.open(tmp_path / "coordinator") as store:
        world = World(Mailbox(store), {name: keep.key.public for name, keep in keeps.items()})
        yield world, [Party(world, keep, name) for name, keep in keeps.items()]
    for keep in keeps.values():
        with closing(keep):
            pass


def place(round: int, purpose: Purpose = Purpose.TRAIN) -> Place:
    return Place(RUN, round, purpose, 0)


def masked(world: World, parties: list[Party], at: Place) -> SecureRound:
    """Let parties come as far as their masked vectors; return the coordinator's half."""

    def terms(attempt: int) -> Terms:
        return Terms(run=f"{RUN} {at.purpose.value}", round=at.round, attempt=attempt, layout=LAYOUT)

    secure = SecureRound(world.office(at.round, at.purpose), terms, 3)
    threads = [threading.Thread(target=party.mask, args=(at,)) for party in parties]
    for thread in threads:
        thread.start()
    asked = {party.name for party in parties}
    for _ in range(2000):
        secure.turn(asked, 60.0, 0.0)
        if not any(thread.is_alive() for thread in threads):
            break
        threads[0].join(0.01)
    assert all(isinstance(party.record(at.purpose), Masked) for party in parties)
    return secure


def open_by(secure: SecureRound, parties: list[Party], at: Place, seconds: float) -> bool:
    """Let some see a sum to its end; return whether it came to one in time. All five have sent their vectors."""
    threads = [threading.Thread(target=party.sums.open, args=(at, lambda: True)) for party in parties]
    ends = time.monotonic() + seconds

    def wait(step: str, silent: object) -> bool:
        time.sleep(0.02)
        return time.monotonic() < ends

    for thread in threads:
        thread.start()
    server = secure.opened(NAMES, wait)
    if server is None:
        secure.shut()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return server is not None


def test_a_message_that_no_letter_holds_is_left_in_several(parties: tuple[World, list[Party]]) -> None:
    """Of 2,150 members and more a client's shares and codes are such a message."""
    world, (party, *_) = parties
    said = header(Kind.SHARES) + bytes(range(256)) * (3 * MESSAGE_BYTES // 256)
    party.sums._post(place(3), Stage.SHARES, said)
    letters = [letter.body for letter in world.mailbox.all(world.office(3).at(0, Stage.SHARES))]
    assert len(letters) == 4 and max(map(len, letters)) <= MESSAGE_BYTES
    assert joined(letters[::-1]) == said


def test_enough_open_it(parties: tuple[World, list[Party]]) -> None:
    world, five = parties
    secure = masked(world, five, place(3))
    assert open_by(secure, five[:4], place(3), seconds=30.0)


def test_too_few_do_not_and_keep_nothing_of_it(parties: tuple[World, list[Party]]) -> None:
    world, five = parties
    secure = masked(world, five, place(3))
    assert not open_by(secure, five[:3], place(3), seconds=1.0)
    for party in five[:3]:
        record = party.record()
        assert isinstance(record, Client), "shares of the others' secrets are dropped with the void round"
        assert record.past.masked == 3
    for party in five[3:]:
        assert isinstance(party.record(), Masked), "who was away has not heard of it"
        party.sums.open(place(3), lambda: True)  # it is back
        assert isinstance(party.record(), Client)
        assert party.line.left[-1] == "train-0-shares", "its word on the survivors comes too late to be left"


def test_who_hears_of_no_round_keeps_what_a_coordinator_that_was_killed_may_ask_for(
    parties: tuple[World, list[Party]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has started again and not come back to the round. To drop one's part then would void a sum that all could open."""
    world, five = parties
    secure = masked(world, five, place(3))

    def away(method: str, path: str, body: Any = None) -> Any:
        raise Refusal(410, "not_open", "No round is open.")

    with monkeypatch.context() as change:
        for party in five:
            change.setattr(party.line, "call", away)
            party.sums.open(place(3), lambda: True)
            assert party.sums.pending(RUN) == place(3)
    assert open_by(secure, five, place(3), seconds=30.0)


def test_a_standing_key_serves_the_run_and_is_gone_with_it(parties: tuple[World, list[Party]]) -> None:
    """Also where the participant starts again in between: its folder has the key, its memory what was agreed on."""
    world, five = parties
    keys = []
    for round in (3, 4):
        assert open_by(masked(world, five, place(round)), five, place(round), seconds=30.0)
        clients = [party.record() for party in five]
        assert all(isinstance(client, Client) and client.past.masked == round for client in clients)
        keys.append([client.standing for client in clients if isinstance(client, Client)])
    assert keys[0] == keys[1] and None not in keys[0]
    assert len({key.secret for key in keys[0] if key}) == 5
    for party in five:
        party.sums.end(RUN)
        record, kept = party.record(), party.keep.secure_sum(RUN, "train")
        assert isinstance(record, Client) and record.standing is None and record.past.masked == 4
        assert kept is not None and b64encode(keys[0][five.index(party)].secret) not in kept  # type: ignore[union-attr]


@pytest.mark.parametrize("later", [place(4), place(3, Purpose.EVALUATE)])
def test_who_has_begun_a_later_sum_cannot_open_the_one_before(
    parties: tuple[World, list[Party]], later: Place, tmp_path: Path
) -> None:
    """A coordinator that says a round is void, and asks for its shares when all have gone on, gets none."""
    world, five = parties
    secure = masked(world, five, place(3))
    before = [party.record() for party in five]
    assert secure.opened(NAMES, lambda step, silent: False) is None
    masked(world, five, later)
    left = [list(party.line.left) for party in five]
    for party in five:
        party.sums.open(place(3), lambda: False)
        assert party.sums.pending(RUN) == later
    assert [party.line.left for party in five] == left, "nobody says anything about the sum of before"
    letters = world.mailbox.all(world.office(3).at(0, Stage.VECTORS))
    (survivors,) = [letter.body for letter in letters]
    half.answer(before[0], survivors, lambda *_: True)
    with pytest.raises((FormatError, ProtocolError)):
        half.answer(five[0].record(later.purpose), survivors, lambda *_: True)


def test_no_message_of_a_void_sum_is_taken_or_handed_out(parties: tuple[World, list[Party]]) -> None:
    world, five = parties
    secure = masked(world, five, place(3))
    assert secure.opened(NAMES, lambda step, silent: False) is None
    secure.shut()
    for stage in Stage:
        at = world.office(3).at(0, stage)
        with pytest.raises(Refusal, match="is void") as refusal:
            world.mailbox.read(at, "c-1", 0)
        assert (refusal.value.status, refusal.value.code) == (410, "over")
        with pytest.raises(Refusal, match="is void"):
            world.mailbox.post(at, "c-1", world.keys["c-1"], Letter("server", "", ""))
    masked(world, five, place(3, Purpose.EVALUATE))
    masked(world, five, place(4))


@pytest.mark.parametrize("error", [ProtocolError, FormatError])
def test_who_refuses_once_has_nothing_left_to_be_asked_for(
    error: type[Exception], parties: tuple[World, list[Party]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a participant that finds a message wrong when it is idle would be handed it for ever."""
    world, five = parties
    masked(world, five, place(3))
    refuses = five[0]

    def wrong(*_: object) -> None:
        raise error("not a message of this sum")

    monkeypatch.setattr(refuses.sums, "_letter", lambda *_: b"")
    monkeypatch.setattr(refuses.sums, "_answered", wrong)
    with pytest.raises(error):
        refuses.sums.open(place(3), lambda: True)
    assert refuses.sums.pending(RUN) is None
