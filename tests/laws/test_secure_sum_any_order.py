"""Messages in any order, lost, doubled, damaged; clients that die; a coordinator that lies: the sum or nothing.

Two machines of hypothesis. In the first the coordinator is honest and the post is not. In the second the coordinator and
two of seven members work together and say to anybody what they like; they never hold both secrets of an honest member.
"""

import os
from contextlib import suppress
from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from koinon.errors import FormatError, ProtocolError
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum import saved
from koinon.privacy.secure_sum.client import Client, Masked, Ready, State
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import CODE_BYTES, Request, Survivors, read_agreement, read_unmasking
from koinon.privacy.secure_sum.primitives import Role
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.server import Server, Stage, arrived, close, take, unmask
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors, Past, Terms
from koinon.privacy.secure_sum.wire import Kind, kind_of

FIVE, SEVEN = tuple("abcde"), tuple("abcdefg")
rarely = st.one_of(st.none(), st.none(), st.integers(0, 10**6))  # which bit is wrong
REFUSED = (FormatError, ProtocolError)


class AnyOrder(RuleBasedStateMachine):
    """Five clients, an honest coordinator, and a post that does what it likes with their messages."""

    @initialize()
    def start(self) -> None:
        self.layout = Layout.of_bits(6, 1, bits=16, cohort=5, bound=1.0)
        self.terms = Terms(run="any", round=1, layout=self.layout)
        self.identities = Identities.of(FIVE)
        self.server: Server | None = Server(terms=self.terms)
        self.clients: dict[str, State] = {}
        self.post: list[tuple[str, bytes]] = []  # whatever a client ever said
        self.letters: dict[str, list[bytes]] = {name: [] for name in FIVE}  # whatever it was ever told
        rng = np.random.default_rng(3)
        self.plain = {name: self.layout.encode(rng.uniform(-1, 1, 6).astype("f4"), 1, rng.random(1)) for name in FIVE}
        self.masked: dict[str, Vector] = {}
        self.total = self.layout.zero()
        self.opened: dict[str, bytes] = {}

    @rule(name=st.sampled_from(FIVE))
    def begins(self, name: str) -> None:
        if name not in self.clients:
            client = Client(party=name, floors=Floors(), past=Past(run="any"))
            self.clients[name], said = half.begin(client, self.terms, os.urandom(32), self.identities.keys[name].sign)
            self.post.append((name, said))

    @precondition(lambda self: self.post)
    @rule(chosen=st.lists(st.integers(0, 10**6), min_size=1, max_size=8), bit=rarely)
    def messages_reach_the_coordinator(self, chosen: list[int], bit: int | None) -> None:
        """Any that were ever said, most of them late ones, perhaps with a wrong bit."""
        for which in chosen:
            name, body = self.post[-1 - which % min(6, len(self.post)) if which % 4 else which % len(self.post)]
            if self.server is not None:
                with suppress(FormatError, ProtocolError):
                    self.server = take(self.server, name, flipped(body, bit), self.identities.verify)

    @precondition(lambda self: any(self.letters.values()))
    @rule(names=st.permutations(FIVE), which=st.integers(0, 3), bit=rarely)
    def letters_reach_clients(self, names: list[str], which: int, bit: int | None) -> None:
        for name in names[which:]:
            if name in self.clients and self.letters[name]:
                self.letter(name, flipped(self.letters[name][max(0, len(self.letters[name]) - 1 - which)], bit))

    def letter(self, name: str, body: bytes) -> None:
        try:
            self.clients[name], said = half.answer(self.clients[name], body, self.identities.verify)
        except REFUSED:
            return
        if said is not None:
            self.post.append((name, said))
            if kind_of(body) is Kind.REQUEST:
                assert self.opened.setdefault(name, said) == said

    @rule(names=st.permutations(FIVE))
    def clients_mask(self, names: list[str]) -> None:
        for name in names[:4]:
            state = self.clients.get(name)
            if isinstance(state, Ready):
                vector = self.plain[name].copy()
                self.clients[name] = half.mask(state, vector)
                self.masked[name] = vector

    @rule(names=st.permutations(FIVE))
    def vectors_arrive(self, names: list[str]) -> None:
        for name in names[:4]:
            if name in self.masked and self.server is not None:
                new = self.server.cohort is not None and self.server.cohort.places.get(name) not in self.server.active
                with suppress(ProtocolError):
                    self.server = arrived(self.server, name)
                    if new:
                        self.total += self.masked[name]

    @rule(name=st.sampled_from(FIVE))
    def a_client_is_killed(self, name: str) -> None:
        if name in self.clients:
            again = saved.from_bytes(saved.to_bytes(self.clients[name]))
            assert again == self.clients[name]

    @precondition(lambda self: self.server is not None and done(self.server) >= 4)
    @rule()
    def time_is_up(self) -> None:
        assert self.server is not None
        if self.server.stage is Stage.UNMASKING:
            self.end()
            return
        try:
            self.server, letters = close(self.server)
        except ProtocolError:
            self.server = None  # the round is over, without a result
            return
        for name, body in letters.items():
            self.letters[name].append(body)

    @rule(names=st.sets(st.sampled_from(FIVE), min_size=4))
    def a_stage_in_which_little_happens(self, names: set[str]) -> None:
        for name in sorted(names):
            self.begins(name)
            if self.letters[name]:
                self.letter(name, self.letters[name][-1])
        for _ in range(2):  # most vectors come
            self.clients_mask(sorted(names))
            self.vectors_arrive(sorted(names))
        if self.post:
            self.messages_reach_the_coordinator([6, 1, 2, 3, 10, 5], None)
        if self.server is not None and done(self.server) >= 4:
            self.time_is_up()

    def end(self) -> None:
        if self.server is not None and self.server.stage is Stage.UNMASKING and self.server.enough:
            total = self.total.copy()
            unmask(self.server, total)
            wanted = self.layout.zero()
            for i in self.server.active:
                wanted += self.plain[self.server.known.names[i]]
            assert np.array_equal(total.body, wanted.body)
            assert np.array_equal(total.tail, wanted.tail)
            SUMS.append(len(self.server.active))

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.end()


SUMS: list[int] = []


def flipped(body: bytes, bit: int | None) -> bytes:
    if bit is None:
        return body
    place = bit // 8 % len(body)
    return body[:place] + bytes([body[place] ^ 1 << bit % 8]) + body[place + 1 :]


def done(server: Server) -> int:
    """Return how many have done what the stage waits for."""
    return len(server.keys) if server.stage is Stage.KEYS else len(server.known) - len(server.waited_for())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=25, stateful_step_count=50, deadline=None)


def test_the_machine_comes_to_sums() -> None:
    """Left to chance alone, some rounds end with a sum: else the machine above tests little."""
    SUMS.clear()
    for seed in range(12):
        random, machine = Random(seed), AnyOrder()
        machine.start()
        for name in FIVE:
            machine.begins(name)
        for _ in range(120):
            choice, names = random.randrange(5), random.sample(FIVE, 5)
            if choice == 0:
                machine.messages_reach_the_coordinator([random.randrange(10**6) for _ in range(8)], None)
            elif choice == 1 and any(machine.letters.values()):
                machine.letters_reach_clients(names, 0, None)
            elif choice == 2:
                machine.clients_mask(names)
            elif choice == 3:
                machine.vectors_arrive(names)
            elif machine.server is not None and done(machine.server) >= 4:
                machine.time_is_up()
        machine.teardown()
    assert {4, 5} <= set(SUMS)


class Liars(RuleBasedStateMachine):
    """A coordinator and the members f and g together, against five honest ones."""

    honest = SEVEN[:5]

    @initialize()
    def start(self) -> None:
        layout = Layout.of_bits(2, 0, bits=16, cohort=7, bound=1.0)
        self.identities = Identities.of(SEVEN)
        self.room = Room(Terms(run="any", round=1, layout=layout), Floors(), self.identities, {})
        self.room.begin(SEVEN)
        self.room.step(Stage.SHARES)
        for name in self.room.step(Stage.VECTORS):
            self.room.mask(name, layout.zero())
        self.cohort = self.room.server.known
        self.codes: dict[tuple[Survivors, str], dict[int, bytes]] = {}  # on a set, for a member, by who has said it
        self.opened: dict[str, tuple[Survivors, dict[int, bytes]]] = {}

    sets = st.lists(st.sampled_from("aaaaaadb"), min_size=7, max_size=7)  # active, dead or both, of seven

    def survivors(self, sets: list[str]) -> Survivors:
        active = frozenset(i for i, word in enumerate(sets) if word in "ab")
        return Survivors(active, frozenset(i for i, word in enumerate(sets) if word in "db"))

    def known(self, sets: Survivors, name: str) -> dict[int, bytes]:
        """Return the codes on a set for a member: those it was given, and those of f and g."""
        return self.codes.get((sets, name), {}) | {i: self.code(sets, i, name) for i in (5, 6)}

    def code(self, sets: Survivors, sender: int, name: str) -> bytes:
        key, text = self.room.states[SEVEN[sender]].client.key, sets.text(self.cohort)
        return key.code(self.cohort, Role.AGREED, sender, SEVEN.index(name), text)

    @rule(name=st.sampled_from(honest), sets=sets)
    def shows_survivors(self, name: str, sets: list[str]) -> None:
        shown = self.survivors(sets)
        try:
            self.room.states[name], said = self.answer(name, shown.to_bytes(self.cohort))
        except REFUSED:
            return
        codes = read_agreement(said, self.cohort, len(shown.active))
        for place, member in enumerate(sorted(shown.active)):
            own = codes[CODE_BYTES * place : CODE_BYTES * (place + 1)]
            self.codes.setdefault((shown, SEVEN[member]), {})[SEVEN.index(name)] = own

    @rule(name=st.sampled_from(honest), sets=sets, without=st.sets(st.integers(0, 6), max_size=2))
    def asks_for_shares(self, name: str, sets: list[str], without: set[int]) -> None:
        shown = self.survivors(sets)
        self.request(name, shown, {i: s for i, s in self.known(shown, name).items() if i not in without})

    @rule(name=st.sampled_from(honest), which=st.integers(0, 10))
    def asks_for_shares_of_what_was_agreed_to(self, name: str, which: int) -> None:
        if self.codes:
            shown, _ = list(self.codes)[which % len(self.codes)]
            self.request(name, shown, self.known(shown, name))

    @rule(name=st.sampled_from(honest), other=st.sampled_from(honest), which=st.integers(0, 10))
    def asks_with_codes_for_another(self, name: str, other: str, which: int) -> None:
        if self.codes:
            shown, _ = list(self.codes)[which % len(self.codes)]
            self.request(name, shown, self.known(shown, other))

    def request(self, name: str, shown: Survivors, codes: dict[int, bytes]) -> None:
        try:
            self.room.states[name], said = self.answer(name, Request(shown, codes).to_bytes(self.cohort))
        except REFUSED:
            return
        found = (shown, read_unmasking(said, self.cohort))
        assert self.opened.setdefault(name, found) == found

    def answer(self, name: str, body: bytes) -> tuple[State, bytes]:
        state, said = half.answer(self.room.states[name], body, self.identities.verify)
        assert said is not None
        return state, said

    @invariant()
    def nobody_has_both_secrets_of_an_honest_member(self) -> None:
        threshold = self.cohort.degree.threshold if hasattr(self, "cohort") else 0
        for owner in range(5 if threshold else 0):
            seeds, keys = 2, 2  # f and g hold a share of each
            for shown, _ in self.opened.values():
                seeds += owner in shown.active
                keys += owner in shown.dead
            assert seeds < threshold or keys < threshold

    @invariant()
    def all_open_for_one_set_of_enough_survivors(self) -> None:
        shown = {sets for sets, _ in getattr(self, "opened", {}).values()}
        assert len(shown) <= 1
        for sets in shown:
            assert len(sets.active) >= 5
            assert not sets.active & sets.dead


TestLiars = Liars.TestCase
TestLiars.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_liars_who_need_no_codes_would_get_both_secrets() -> None:
    """What the machine above looks for can be found: with codes on two sets two requests open everything."""
    machine = Liars()
    machine.start()
    one, other = machine.survivors(list("aaaaaaa")), machine.survivors(list("adaaaaa"))
    for name, shown in (("a", one), ("b", one), ("c", one), ("c", other), ("d", other), ("e", other)):
        state = machine.room.states[name]
        assert isinstance(state, Masked)
        machine.room.states[name] = replace(state, agreed=None)  # a client that forgets
        codes = {i: machine.code(shown, i, name) for i in shown.active if SEVEN[i] != name}
        body = Request(shown, codes).to_bytes(machine.cohort)
        machine.opened[f"{name}{len(shown.dead)}"] = (
            shown,
            read_unmasking(machine.answer(name, body)[1], machine.cohort),
        )
    assert sum(1 in shown.active for shown, _ in machine.opened.values()) + 2 >= 5
    assert sum(1 in shown.dead for shown, _ in machine.opened.values()) + 2 >= 5
