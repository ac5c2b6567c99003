"""A toy handshake over the stage mailbox: three clients toss a coin that none of them, nor the post, can bend.

Each commits to a secret, and shows it when it has everybody's commitment; the toss is what all secrets make together
(Blum 1983, "Coin flipping by telephone"). Both halves are pure functions, so what carries them may lose, repeat and
delay: first a hypothesis, then real calls to a coordinator that is killed with -9 in the middle.
"""

import base64
import hashlib
import random
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "abuse"), str(HERE)]

import bare
import processes

from koinon.fleet.coordinator.mailbox import SERVER, Address, Mailbox
from koinon.fleet.coordinator.store import FleetStore

COMMIT, REVEAL, RESULT = STAGES = ("commit", "reveal", "result")
SECONDS = 90.0


@dataclass(frozen=True)
class Message:
    """What one says to another in a stage."""

    stage: str
    sender: str
    to: str
    body: bytes


@dataclass(frozen=True)
class Tosser:
    """A client's half: what it knows."""

    name: str
    others: frozenset[str]
    secret: bytes
    commitments: Mapping[str, bytes] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    liars: frozenset[str] = frozenset()

    @property
    def toss(self) -> bytes | None:
        """The result, once everybody has shown what it had committed to."""
        if self.liars or not self.others <= self.secrets.keys() or not self.others <= self.commitments.keys():
            return None
        return hashlib.sha256(b"".join(sorted([self.secret, *self.secrets.values()]))).digest()


@dataclass(frozen=True)
class Witness:
    """The server's half: what each client says has come out."""

    clients: frozenset[str]
    results: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def toss(self) -> bytes | None:
        """The result, once all say the same."""
        said = set(self.results.values())
        return said.pop() if self.clients == self.results.keys() and len(said) == 1 else None


def commitment(name: str, secret: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + secret).digest()


def client(state: Tosser, message: Message | None) -> tuple[Tosser, tuple[Message, ...]]:
    """Return what a client knows after a message (None: the beginning) and what it says to that."""
    if message is None:
        return state, (Message(COMMIT, state.name, "all", commitment(state.name, state.secret)),)
    sender, before = message.sender, state
    if sender not in state.others:
        return state, ()
    if message.stage == COMMIT and sender not in state.commitments:
        state = replace(state, commitments={**state.commitments, sender: message.body})
    if message.stage == REVEAL and sender not in state.secrets:
        state = replace(state, secrets={**state.secrets, sender: message.body})
    known = state.commitments.keys() & state.secrets.keys()
    liars = {name for name in known if commitment(name, state.secrets[name]) != state.commitments[name]}
    state = replace(state, liars=frozenset(liars))
    says: list[Message] = []
    if state.others <= state.commitments.keys() and not before.others <= before.commitments.keys():
        says.append(Message(REVEAL, state.name, "all", state.secret))
    if state.toss is not None and before.toss is None:
        says.append(Message(RESULT, state.name, SERVER, state.toss))
    return state, tuple(says)


def server(state: Witness, message: Message) -> tuple[Witness, tuple[Message, ...]]:
    """Return what the server knows after a message; it has nothing to say to it."""
    if message.stage != RESULT or message.sender not in state.clients or message.sender in state.results:
        return state, ()
    return replace(state, results={**state.results, message.sender: message.body}), ()


def tossers(names: tuple[str, ...]) -> list[Tosser]:
    return [Tosser(name, frozenset(names) - {name}, name.encode() * 4) for name in names]


def expected(states: list[Tosser]) -> bytes:
    return hashlib.sha256(b"".join(sorted(state.secret for state in states))).digest()


# The halves by themselves.


@given(st.integers(0, 2**32))
def test_any_order_with_any_repetition_gives_the_same_toss(seed: int) -> None:
    chance, names = random.Random(seed), ("lyon", "nice", "paris")
    states, witness = {state.name: state for state in tossers(names)}, Witness(frozenset(names))
    post = [(to, message) for state in states.values() for message in client(state, None)[1] for to in names]
    delivered: list[tuple[str, Message]] = []
    while post or chance.random() < 0.8:
        again = bool(delivered) and (not post or chance.random() < 0.3)
        to, message = chance.choice(delivered if again else post)
        if not again:
            post.remove((to, message))
            delivered.append((to, message))
        if to == SERVER:
            witness, says = server(witness, message)
        else:
            before = states[to]
            states[to], says = client(before, message)
            if again:
                assert states[to] == before, "a message that comes again changes nothing"
        post += [(to, one) for one in says for to in ((SERVER,) if one.to == SERVER else names)]
    assert {state.toss for state in states.values()} == {witness.toss} == {expected(list(states.values()))}


def test_who_shows_another_secret_than_it_committed_to_is_named() -> None:
    lyon, nice, paris = tossers(("lyon", "nice", "paris"))
    for other in (nice, paris):
        lyon, _ = client(lyon, client(other, None)[1][0])
    lyon, _ = client(lyon, Message(REVEAL, "nice", "all", b"something better"))
    lyon, _ = client(lyon, Message(REVEAL, "paris", "all", paris.secret))
    assert lyon.liars == {"nice"}
    assert lyon.toss is None


# Over the real post.


class Desk:
    """Carries one client's messages: badly, as networks do, but again and again. It believes signatures only."""

    def __init__(self, party: bare.Party, run: str, round: int, state: Tosser, chance: random.Random) -> None:
        self.party, self.state = party, state
        self._run, self._round, self._chance = run, round, chance
        self._outbox = list(client(state, None)[1])
        self._read = dict.fromkeys(STAGES, 0)
        self.lost = self.repeated = 0

    @property
    def done(self) -> bool:
        """Whether all is known and said."""
        return self.state.toss is not None and not self._outbox

    def turn(self) -> None:
        """Try to send everything once and to read everything once."""
        for message in list(self._outbox):
            fate = self._chance.random()
            if fate < 0.25:  # it is lost on the way
                self.lost += 1
                continue
            numbers = {self._post(message) for _ in range(1 if fate < 0.75 else 2)}
            assert len(numbers) == 1, "the same message twice is one message"
            if fate < 0.5:  # the answer is lost: it is sent again next time
                self.lost += 1
                continue
            self._outbox.remove(message)
        for stage in STAGES:
            self._take(stage)

    def _post(self, message: Message) -> int:
        body = bare.message(self.party, self._run, self._round, message.stage, message.to, message.body)
        return int(self._call("POST", message.stage, body).json["number"])

    def _take(self, stage: str) -> None:
        found = self._call("GET", stage, since=self._read[stage]).json
        if self._chance.random() < 0.3:  # the answer is lost
            self.lost += 1
            return
        keys = self._keys()
        for one in found["messages"]:
            body = decoded(one["body"])
            lines = (self._run, self._round, stage, one["from"], one["to"], bare.sha256(body))
            Ed25519PublicKey.from_public_bytes(keys[one["from"]]).verify(
                decoded(one["signature"]), bare.text("koinon/1 message", *lines)
            )
            assert one["to"] in ("all", self.party.client)
            self.state, says = client(self.state, Message(stage, one["from"], one["to"], body))
            self._outbox += says
        if self._chance.random() < 0.3:  # it forgets how far it has read: everything comes again
            self._read[stage], self.repeated = 0, self.repeated + len(found["messages"])
        else:
            self._read[stage] = found["next"]

    def _keys(self) -> dict[str, bytes]:
        rows = self.party.call("GET", f"/v1/runs/{self._run}/clients").json["clients"]
        return {row["client"]: decoded(row["key"]) for row in rows}

    def _call(self, method: str, stage: str, body: object = None, since: int = 0) -> bare.Answer:
        """Make a call; begin a new session where a restart has ended the old one."""
        path = bare.messages_path(self._run, self._round, stage)
        path += f"?since={since}&wait=0" if method == "GET" else ""
        answer = self.party.call(method, path, body)
        if answer.status == 401:
            assert self.party.begin().status == 200
            answer = self.party.call(method, path, body)
        assert answer.status == 200, answer
        return answer


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[processes.Fleet]:
    environment = {"PYTHONPATH": ":".join([*sys.path, str(HERE.parent)])}
    with processes.Fleet(tmp_path, HERE / "abuse" / "app.py", environment=environment) as fleet:
        fleet.serve()
        yield fleet


def joined(fleet: processes.Fleet, *names: str) -> tuple[str, list[bare.Party]]:
    """Return the run, and parties that have joined it."""
    parties, run = [], {}
    for name in names:
        party = bare.Party(fleet.url, name, bare.Key("ed25519"))
        assert party.enrol(fleet.invite(name)).status == 200
        assert party.begin().status == 200
        run = party.call("GET", "/v1/runs").json["runs"][0]
        assert party.join(run).status == 204
        parties.append(party)
    return str(run["run"]), parties


def opened(fleet: processes.Fleet) -> int:
    """Return the number of the open round, as soon as there is one."""
    return int(fleet.until("a round is open", lambda: fleet.run()["open"], SECONDS)["round"])


def read_by_the_server(fleet: processes.Fleet, run: str, round: int) -> list[Message]:
    """Return what has come for the server's half, as the coordinator's store has it."""
    with FleetStore.read_only(fleet.store) as store:
        found = Mailbox(store).read(Address(run, round, RESULT), SERVER, 0)
    return [Message(RESULT, str(one["from"]), SERVER, decoded(str(one["body"]))) for one in found]


@pytest.mark.parametrize("seed", [1, 2])
def test_three_clients_toss_over_a_bad_line_and_a_killed_coordinator(fleet: processes.Fleet, seed: int) -> None:
    run, parties = joined(fleet, "lyon", "nice", "paris")
    round, names = opened(fleet), tuple(party.client for party in parties)
    states = tossers(names)
    desks = [Desk(p, run, round, s, random.Random(f"{seed} {s.name}")) for p, s in zip(parties, states, strict=True)]
    ends, killed = time.monotonic() + SECONDS, 0
    while not all(desk.done for desk in desks):
        assert time.monotonic() < ends, [desk.state for desk in desks]
        for desk in desks:
            desk.turn()
        if killed == 0 and any(desk.state.commitments for desk in desks):
            assert not all(desk.state.toss for desk in desks), "it is killed in the middle"
            fleet.coordinator.kill()
            fleet.serve()
            assert opened(fleet) == round
            killed += 1
    witness = Witness(frozenset(names))
    for message in read_by_the_server(fleet, run, round) * 2:
        witness, _ = server(witness, message)
    assert killed == 1
    assert sum(desk.lost for desk in desks) and sum(desk.repeated for desk in desks), "the line was bad"
    assert {desk.state.toss for desk in desks} == {witness.toss} == {expected(states)}


def test_forgers_and_eavesdroppers_get_nothing(fleet: processes.Fleet) -> None:
    run, (lyon, nice, paris) = joined(fleet, "lyon", "nice", "paris")
    stranger = bare.Party(fleet.url, "stranger", bare.Key("ed25519"))
    assert stranger.enrol(fleet.invite("stranger")).status == 200
    assert stranger.begin().status == 200
    round = opened(fleet)
    box = bare.messages_path(run, round, COMMIT)

    def posted(by: bare.Party, to: str, sender: str | None = None) -> bare.Answer:
        return by.call("POST", box, bare.message(by, run, round, COMMIT, to, b"heads", sender))

    assert posted(nice, "all", sender=lyon.client).code == "signature", "nobody speaks for another"
    replayed = bare.message(lyon, run, round, REVEAL, "all", b"heads")
    assert lyon.call("POST", box, replayed).code == "signature", "nor in another stage"
    assert posted(lyon, stranger.client).code == "unknown", "nor to somebody outside the run"
    assert posted(stranger, "all").code == "not_joined"
    assert stranger.call("GET", box).code == "not_joined"
    assert posted(lyon, nice.client).status == 200
    assert paris.call("GET", box).json["messages"] == [], "what is for nice is for nobody else"
    assert [one["from"] for one in nice.call("GET", box).json["messages"]] == [lyon.client]
    assert read_by_the_server(fleet, run, round) == []


def test_a_wait_for_a_message_ends_when_it_comes(fleet: processes.Fleet) -> None:
    run, (lyon, nice) = joined(fleet, "lyon", "nice")
    round = opened(fleet)
    box = bare.messages_path(run, round, COMMIT)
    with ThreadPoolExecutor(1) as beside:
        began = time.monotonic()
        waiting = beside.submit(nice.call, "GET", f"{box}?since=0&wait=20")
        time.sleep(0.5)
        assert not waiting.done()
        assert lyon.call("POST", box, bare.message(lyon, run, round, COMMIT, nice.client, b"heads")).status == 200
        assert [one["from"] for one in waiting.result(10).json["messages"]] == [lyon.client]
    assert time.monotonic() - began < 10
