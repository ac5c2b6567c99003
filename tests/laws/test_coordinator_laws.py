"""Whatever happens in whatever order, a stage settles once, with enough of those who answered, and nothing waits for ever.

A machine of hypothesis plays the world: clients that come, answer, fail, repeat themselves and are sent away, an
operator who pauses, a clock that only goes forward, a process that is killed. Beside it stands a small book of what
everybody was told; the laws compare the two after every step. Some stages are settled under a seal, which clients have to
open, and some are void when their time is up with too few.
"""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from koinon.core.algorithm import Synchronous
from koinon.fleet.coordinator import machine as c
from koinon.fleet.coordinator.machine import Standing

CLIENTS = tuple("abcdef")
STRANGER = "z"
clients = st.sampled_from((*CLIENTS, STRANGER))
wants = st.tuples(st.sampled_from([1, 1, 2, 4]), st.booleans())  # updates at least; whether there is a trusted client
drawn = st.lists(st.sampled_from(CLIENTS), unique=True, max_size=4).map(tuple)
terms = st.builds(
    Synchronous,
    clients=st.integers(1, 3),
    quorum=st.sampled_from([0.1, 0.5, 0.67, 1.0]),
    over_selection=st.sampled_from([1.0, 1.4, 2.0]),
    shortest=st.floats(0.5, 2.0),
    longest=st.floats(2.0, 20.0),
    retries=st.integers(0, 2),
)


@dataclass
class Book:
    """What was said of the open stage: all that a law may lean on, and what a restart finds written."""

    draw: tuple[str, ...]
    reserve: tuple[str, ...]
    least: int
    essential: tuple[str, ...]
    lapses: bool = False
    closed: bool = False
    begins: bool = True
    awaited: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    target: int = 0
    answers: dict[str, bool] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)  # and not asked again since
    asks: int = 0  # since this process began, while time was running
    times: dict[str, int] = field(default_factory=dict)  # how often each was asked since then
    allowed: dict[str, int] = field(default_factory=dict)  # how often it has come back since then

    def quorum(self, terms: Synchronous) -> int:
        """So few answers settle it."""
        return max(self.least, math.ceil(self.target * terms.quorum))

    def arrived(self, *others: str) -> set[str]:
        """Whose updates count, if those of ``others`` do too."""
        return {client for client, counts in self.answers.items() if counts} | set(others)

    def of_use(self, arrived: set[str]) -> bool:
        """Whether a round can be made of these."""
        return len(arrived) >= self.least and arrived >= set(self.essential)

    def hopeless(self, revoked: set[str]) -> bool:
        """Whether too few are left of the only ones that could make it."""
        return self.closed and len({*self.draw, *self.reserve} - revoked) < self.least

    def missing(self, expected: int, revoked: set[str]) -> int:
        """How many more are wanted than are expected."""
        short = max(self.target - len(set(self.answers) - revoked), self.least - len(self.arrived() - revoked))
        return max(0, short - expected)


class Coordinator(RuleBasedStateMachine):
    """The world around one run's coordinator."""

    @initialize(
        terms=terms,
        here=st.sets(st.sampled_from(CLIENTS)),
        draw=drawn,
        others=st.sampled_from([(), CLIENTS]),
        wants=wants,
    )
    def begin(
        self,
        terms: Synchronous,
        here: set[str],
        draw: tuple[str, ...],
        others: tuple[str, ...],
        wants: tuple[int, bool],
    ) -> None:
        self.state = c.State(terms)
        self.now = 100.0
        self.wakes: list[float] = []
        self.book: Book | None = None
        self.sealed: tuple[str, set[str]] | None = None  # a settled stage's step, and who has not spoken in it
        self.ends: float | None = None  # when that step is over
        self.revoked: set[str] = set()
        for client in sorted(here.union(CLIENTS[: terms.clients])):
            self.hand(c.Present(client))
        self.open(draw, others, everybody=not draw, wants=wants, ways=(False, False, True), awaited=set())

    # What happens.

    @precondition(lambda self: self.book is None and self.sealed is None)
    @rule(
        draw=drawn,
        others=drawn,
        everybody=st.booleans(),
        wants=wants,
        ways=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        awaited=st.one_of(st.just(set()), st.sets(st.sampled_from(CLIENTS), max_size=2)),
    )
    def open(
        self, draw: tuple[str, ...], others: tuple[str, ...], everybody: bool, wants: tuple[int, bool],
        ways: tuple[bool, bool, bool], awaited: set[str],
    ) -> None:  # fmt: skip
        draw = CLIENTS if everybody else draw
        (least, rooted), (lapses, closed, begins) = wants, ways
        essential = tuple(client for client in draw if client not in self.revoked)[:rooted]
        reserve = tuple(client for client in others if client not in draw)
        book = self.book = Book(draw, reserve, min(least, max(1, len(draw))), essential, lapses, closed, begins)
        book.awaited = awaited - self.revoked
        wanted = {
            "least": book.least,
            "essential": essential,
            "lapses": lapses,
            "closed": closed,
            "begins": begins,
            "awaited": {c: c.upper() for c in awaited},
        }
        self.hand(c.Open(draw, reserve, **wanted))

    @rule(client=st.sampled_from(CLIENTS))
    def present(self, client: str) -> None:
        if self.book is not None:
            self.book.awaited.discard(client)
            self.book.allowed[client] = self.book.allowed.get(client, 0) + 1
            stage = self.state.stage
            if (
                stage is not None
                and stage.deadline is None
                and client not in self.revoked
                and self.book.answers.get(client) is False
            ):
                del self.book.answers[client]  # the run rests, and it may have been mended
                self.book.failed.add(client)
        self.hand(c.Present(client))
        assert client in self.state.present or client in self.revoked

    @precondition(lambda self: self.waited_for())
    @rule(data=st.data(), counts=st.booleans())
    def an_asked_client_answers(self, data: st.DataObject, counts: bool) -> None:
        self.anybody_answers(data.draw(st.sampled_from(sorted(self.waited_for()))), counts)

    @rule(client=clients, counts=st.booleans())
    def anybody_answers(self, client: str, counts: bool) -> None:
        """Hand in an answer; what comes from nobody who is asked, again, or too late, changes nothing."""
        book, before = self.book, self.state
        welcome = book is not None and client in book.asked - self.revoked - set(book.answers)
        if welcome:
            book.answers[client] = counts
            book.failed.discard(client)
        self.hand(c.Answered(client, counts))
        if not welcome:
            assert self.state == before

    @precondition(lambda self: self.waited_for())
    @rule(data=st.data())
    def an_asked_client_fails(self, data: st.DataObject) -> None:
        client, book = data.draw(st.sampled_from(sorted(self.waited_for()))), self.book
        book.failed.add(client)
        self.hand(c.Failed(client, "no space"))
        assert client not in self.state.present, "who has failed is not counted on until it comes back"

    @rule(client=clients)
    def anybody_else_fails(self, client: str) -> None:
        before = self.state
        if client not in self.waited_for():
            self.hand(c.Failed(client, "no space"))
            assert self.state == before

    @precondition(lambda self: self.book is not None and self.book.asked)
    @rule(more=st.integers(0, 2))
    def from_now_on_nobody_else_is_of_use(self, more: int) -> None:
        book = self.book
        book.least, book.lapses = max(book.least, min(book.least + more, book.target)), True
        self.hand(c.Needed(self.book.least, lapses=True))

    @precondition(lambda self: self.book is None and self.sealed is None)
    @rule(silent=st.sets(st.sampled_from(CLIENTS), min_size=1))
    def the_sum_is_still_closed(self, silent: set[str]) -> None:
        self.seal("agreement", silent)

    @precondition(lambda self: self.sealed is not None)
    @rule(data=st.data())
    def some_of_them_speak(self, data: st.DataObject) -> None:
        step, silent = self.sealed
        left = data.draw(st.sets(st.sampled_from(sorted(silent)), min_size=1))
        self.seal(step, left)

    @precondition(lambda self: self.sealed is not None)
    @rule(silent=st.sets(st.sampled_from(CLIENTS), min_size=1))
    def the_next_step_begins(self, silent: set[str]) -> None:
        self.seal("unmasking", silent)

    @precondition(lambda self: self.sealed is not None)
    @rule()
    def the_sum_is_open(self) -> None:
        self.sealed, here = None, self.state.present
        self.hand(c.Unsealed())
        assert self.state.present == here, "whoever was not needed is still counted on"

    def seal(self, step: str, silent: set[str]) -> None:
        if self.sealed is None or self.sealed[0] != step:
            self.ends = None
        self.sealed = step, silent
        self.hand(c.Sealed(step, tuple(sorted(silent))))

    @precondition(lambda self: len(self.revoked) < len(CLIENTS))
    @rule(client=clients)
    def revoke(self, client: str) -> None:
        self.revoked.add(client)
        if self.book is not None:
            self.book.awaited.discard(client)
        if self.book is not None and client in self.book.asked:
            left = len(self.book.asked - self.revoked)
            self.book.target = max(self.book.least, min(self.book.target, left))
        self.hand(c.Revoked(client))

    @rule(again=st.booleans())
    def pause_or_resume(self, again: bool) -> None:
        before, book, waiting = self.state, self.book, self.waited_for()
        event = c.Pause() if before.paused == again else c.Resume()
        waited_for_return = book is not None and bool(book.awaited)
        if isinstance(event, c.Resume):
            self.ends = None if before.paused else self.ends  # there is the whole time again
            if book is not None:
                book.awaited = set()
        self.hand(event)
        assert self.state.paused == isinstance(event, c.Pause)
        if isinstance(event, c.Resume) and not before.paused and waited_for_return:
            assert self.book is not book or not self.state.stage.awaited, "the operator does not wait for who is gone"
        elif isinstance(event, c.Resume) and not before.paused:
            assert self.state == before, "resuming what was not paused changes nothing"
        elif isinstance(event, c.Resume) and waiting and before.stage.deadline is not None and self.book is book:
            assert self.state.stage.attempt == before.stage.attempt
            assert self.state.stage.deadline >= self.now + before.terms.shortest, "there is the whole time again"

    @rule(seconds=st.floats(0.0, 10.0))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.wakes = [at for at in self.wakes if at > self.now]
        self.hand(c.Tick())

    @rule()
    def woken(self) -> None:
        if self.wakes:
            self.tick(max(0.0, min(self.wakes) - self.now))

    @rule(rest=st.booleans())
    def kill_and_start(self, rest: bool) -> None:
        book, before = self.book, self.state
        self.state = c.State(before.terms, paused=before.paused, revoked=frozenset(self.revoked))
        self.wakes = []
        self.ends = None
        if self.sealed is not None:
            self.seal(*self.sealed)
        if book is None:
            return
        book.failed, book.asks, book.times, book.allowed = set(), 0, {}, {}
        if not rest:  # some clients are back before the driver is
            for client in sorted(before.present):
                self.present(client)
        asked = tuple(sorted(book.asked))
        wants = {"least": book.least, "essential": book.essential, "lapses": book.lapses, "closed": book.closed}
        wants["begins"] = book.begins
        wants["awaited"] = {} if asked else {client: client for client in book.awaited}
        if asked:
            book.awaited = set()
        self.hand(c.Open(book.draw, book.reserve, asked, book.target, dict(book.answers), **wants))
        stage = before.stage
        if self.book is book and stage is not None and stage.deadline is not None:
            self.same_end(before, self.state)

    # What follows.

    def hand(self, event: c.Event) -> None:
        """Hand in an event and do what is commanded."""
        rested, silent = self.state.held, self.waited_for()
        self.silent = silent - {event.client} if isinstance(event, c.Answered | c.Failed | c.Revoked) else silent
        self.state, commands = c.handle(self.state, event, self.now)
        for command in commands:
            match command:
                case c.Wake(at):
                    assert at > self.now, "who is woken at once is woken for ever"
                    self.wakes.append(at)
                case c.Ask(chosen, target):
                    self.ask(chosen, target)
                case c.Settle(made, lost):
                    self.settle(set(made), dict(lost))
                    assert command == commands[-1], "nothing follows the end"
                case c.Void(silent, lost):
                    self.void(set(silent), dict(lost))
                    assert command == commands[-1], "nothing follows the end"
        if self.state.held and not self.state.paused and not rested and not isinstance(event, c.Present | c.Open):
            assert not silent & self.waited_for() & self.state.present, "who was silent to the end is not counted on"

    def ask(self, chosen: tuple[str, ...], target: int) -> None:
        book = self.book
        assert book is not None, "there is something to ask for"
        assert not self.state.paused
        assert not book.awaited, "nobody is asked before all are back without whom rounds came to nothing"
        assert chosen, "somebody is asked"
        assert set(chosen) <= {*book.draw, *book.reserve} - self.revoked
        assert not set(chosen) & set(book.answers), "who has answered is left in peace"
        assert book.least <= target <= max(book.least, len(book.draw)) or self.revoked & book.asked
        silent = self.waited_for()
        assert not silent & set(chosen) & self.state.present, "who was silent is asked again, and not counted on"
        if book.asks:
            book.target = target
            missing = book.missing(len(silent & self.state.present), self.revoked)
            assert len(set(chosen) - book.asked) <= missing, "no more take the place of others than are missing"
        book.asked |= set(chosen)
        book.failed -= set(chosen)
        book.target = target
        book.asks += 1
        for client in chosen:
            book.times[client] = book.times.get(client, 0) + 1
            again = self.state.terms.retries + 1 + book.allowed.get(client, 0)
            assert book.times[client] <= again, "nobody is asked in a hot loop"

    def settle(self, made: set[str], lost: dict[str, str]) -> None:
        book = self.book
        assert book is not None, "a stage settles at most once"
        assert not self.state.paused
        assert made == set(book.answers) - self.revoked, "those who answered, all of them and nobody else"
        assert set(lost) == book.asked - made, "every other one has a reason"
        assert all(lost.values())
        everybody = {*book.draw, *book.reserve}
        assert not book.hopeless(self.revoked), "of too few nothing is made"
        if not (not book.draw or everybody <= self.revoked):
            assert len(made) >= book.quorum(self.state.terms)
            arrived = book.arrived() - self.revoked
            here = self.state.present & everybody
            assert book.of_use(arrived) or not (
                arrived or here - book.asked or book.failed - self.revoked or self.silent
            )
        late = {client for client, why in lost.items() if why.startswith("late")}
        assert not late & self.state.present, "who was silent is not counted on"
        self.book, self.wakes = None, []

    def void(self, silent: set[str], lost: dict[str, str]) -> None:
        assert not self.state.paused
        assert not silent & self.state.present - self.failed(), "who was silent is not counted on"
        if self.sealed is not None:
            assert silent == self.sealed[1] == set(lost), "of a settled stage those are missing who have not spoken"
            assert self.ends is not None and self.now >= self.ends, "they had their time"
            self.sealed, self.wakes = None, []
            return
        book = self.book
        assert book is not None
        if book.hopeless(self.revoked):
            assert not silent and set(lost) <= book.failed | self.revoked, "nobody is to blame who was still asked"
            self.book, self.wakes = None, []
            return
        assert book.lapses, "what can be waited for is"
        arrived = book.arrived() - self.revoked
        enough = len(set(book.answers) - self.revoked) >= book.quorum(self.state.terms)
        assert not (enough and book.of_use(arrived)), "what a round can be made of is never given up"
        assert set(lost) == book.asked - (set(book.answers) - self.revoked), "everyone that is missing has a reason"
        assert silent == set(lost) - self.revoked
        self.book, self.wakes = None, []

    def failed(self) -> set[str]:
        """Return who said that it cannot, and may have come back since."""
        return set() if self.book is None else self.book.failed

    def waited_for(self) -> set[str]:
        """Return who is asked and has said nothing."""
        if self.book is None:
            return set()
        return self.book.asked - set(self.book.answers) - self.book.failed - self.revoked

    # Laws, after every step.

    @invariant()
    def the_open_stage_is_the_books(self) -> None:
        stage = self.state.stage
        assert (stage is None) == (self.book is None)
        if stage is None:
            return
        asked, answers = self.book.asked, self.book.answers
        assert set(stage.standings) == asked, "every client that stands somewhere was asked"
        assert set(stage.of(Standing.REVOKED)) == asked & self.revoked
        assert set(stage.of(Standing.ARRIVED)) == {k for k, good in answers.items() if good} - self.revoked
        assert set(stage.of(Standing.REFUSED)) == {k for k, good in answers.items() if not good} - self.revoked
        assert set(stage.of(Standing.FAILED)) == self.book.failed - self.revoked
        assert set(stage.of(Standing.ASKED)) == self.waited_for()
        assert stage.target == self.book.target
        assert stage.attempt <= self.state.terms.retries + 1

    @invariant()
    def nothing_hangs(self) -> None:
        state, stage = self.state, self.state.stage
        assert not self.revoked & state.present
        seal = state.seal
        assert (seal is None) == (self.sealed is None)
        if seal is not None:
            assert stage is None
            assert set(seal.silent) == self.sealed[1]
            self.ends = self.ends or seal.deadline
            assert seal.deadline == self.ends, "time does not begin anew while some of them speak"
            assert state.paused or self.now < seal.deadline <= self.now + state.terms.longest
            assert state.paused or any(at <= seal.deadline for at in self.wakes), "somebody will come and look"
        gathers = stage is not None and stage.attempt == 0 and stage.deadline is not None
        if stage is not None and not state.paused and (gathers or (stage.lapses and stage.attempt)):
            assert any(at <= stage.deadline for at in self.wakes), (
                "what is void without enough is not waited for for ever"
            )
        if state.held:
            assert state.waits_for, "a run that rests says for whom"
        elif stage is not None:
            answered = len(stage.of(Standing.ARRIVED, Standing.REFUSED))
            of_use = self.book.of_use(set(stage.of(Standing.ARRIVED)))
            assert answered < stage.target or not of_use, "as many as are wanted are enough"
            assert self.now < stage.deadline <= self.now + state.terms.longest
            assert any(at <= stage.deadline for at in self.wakes), "somebody will come and look"
            failed = stage.of(Standing.FAILED) if stage.lapses else ()
            assert self.waited_for() or failed, "nobody waits when all have spoken"

    @invariant()
    def nobody_who_is_here_is_forgotten(self) -> None:
        """A run that rests for want of clients has asked everybody who is here and may answer."""
        stage = self.state.stage
        if stage is None or self.state.paused or not self.state.held:
            return
        here = self.state.present & {*stage.draw, *stage.reserve}
        if stage.attempt == 0:
            if stage.awaited or (stage.lapses and len(here) < stage.least):
                return
            enough = len(self.state.present) >= self.state.terms.clients or stage.deadline is None and not stage.begins
            assert not (enough and here and self.state.present >= set(stage.essential))
        else:
            assert not here & set(stage.of(Standing.FAILED))
            assert here <= set(stage.standings) or len(here & self.waited_for()) >= self.book.missing(0, self.revoked)
            assert {*stage.draw, *stage.reserve} - self.revoked, "it waits for somebody who can come"

    @invariant()
    def time_alone_ends_it_or_lets_it_rest(self) -> None:
        state, now = self.state, self.now
        for _ in range(state.terms.retries + 2):
            ends = [each.deadline for each in (state.stage, state.seal) if each is not None]
            if state.paused or not ends or ends == [None]:
                return
            (now,) = ends
            state, _ = c.handle(state, c.Tick(), now)
        assert state.seal is None
        stage = state.stage
        gathers = stage is not None and stage.attempt == 0  # nobody is asked while too few are here for a run at all
        short = gathers and stage.begins and len(state.present) < state.terms.clients
        too_few = gathers and (short or not state.present >= set(stage.essential))
        assert stage is None or (state.held and (too_few or not stage.lapses))

    @invariant()
    def it_settles_as_soon_as_everybody_has_answered(self) -> None:
        stage = self.state.stage
        if stage is None or stage.attempt == 0 or self.state.paused or not self.book.asked - self.revoked:
            return
        pending = (*stage.of(Standing.ASKED), *stage.of(Standing.FAILED))
        if not self.book.of_use(self.book.arrived(*pending) - self.revoked):
            return
        assert settled(self.state, [c.Answered(client, True) for client in pending], self.now) is not None

    def same_end(self, before: c.State, after: c.State) -> None:
        """Check that a restart changes nothing but the time there is: the same answers make the same sum."""
        pending = before.stage.of(Standing.ASKED)
        answers = [c.Answered(client, i % 2 == 0) for i, client in enumerate(pending)]
        end = [c.Resume(), *answers]
        first, second = settled(before, end, self.now), settled(after, end, self.now)
        if first is not None and second is None:  # who had failed is waited for anew
            last = after
            for event in end:
                last, _ = c.handle(last, event, self.now)
            second = settled(last, [c.Tick()], last.stage.deadline)
        assert first is None or first == second


def settled(state: c.State, events: list[c.Event], now: float) -> tuple[str, ...] | None:
    """Return whose updates make the stage after these events, or None while it is open."""
    for event in events:
        state, commands = c.handle(state, event, now)
        for command in commands:
            if isinstance(command, c.Settle):
                return command.clients
    return None


def commands(state: c.State, *events: c.Event, at: float = 0.0) -> tuple[c.State, list[c.Command]]:
    """Return the state after events, and all commands."""
    said: list[c.Command] = []
    for event in events:
        state, more = c.handle(state, event, at)
        said += more
    return state, said


TWO = c.State(Synchronous(clients=2, quorum=1.0, shortest=5.0, longest=60.0, retries=0))


def test_a_round_by_hand() -> None:
    state, said = commands(TWO, c.Open(("a", "b")), c.Present("a"))
    assert said == []
    assert state.waits_for == "1 more client to join: 1 of 2 are here"
    state, said = commands(state, c.Present("b"))
    assert said == [c.Ask(("a", "b"), 2), c.Wake(60.0)]
    assert state.waits_for == "2 of 2 answers"
    state, said = commands(state, c.Answered("a", True), at=2.0)
    assert said == [c.Wake(60.0)]
    state, said = commands(state, c.Tick(), at=60.0)
    assert (said, state.present) == ([], {"a"})
    assert state.waits_for == "1 more client: 1 have answered, and 2 must"
    state, said = commands(state, c.Answered("b", True), at=1000.0)
    assert said == [c.Settle(("a", "b"), {})]
    assert state.durations == (2.0,), "what comes after the time is up says nothing of how long a round takes"
    assert state.waits_for is None
    _, said = commands(state, c.Open(("a", "b")), at=1000.0)
    assert said == [c.Ask(("a", "b"), 2), c.Wake(1008.0)], "four times what was measured"


def test_no_time_is_measured_across_a_rest_or_a_restart() -> None:
    asked, _ = commands(TWO, c.Present("a"), c.Present("b"), c.Open(("a", "b")))
    rested, _ = commands(asked, c.Pause(), c.Resume(), c.Answered("a", True), at=10.0)
    again, _ = commands(TWO, c.Open(("a", "b"), asked=("a", "b"), target=2), c.Answered("a", True), at=10.0)
    assert rested.durations == again.durations == ()


def test_as_many_take_the_place_of_others_as_are_missing() -> None:
    state, _ = commands(TWO, c.Present("a"), c.Present("b"), c.Open(("a", "b"), reserve=("c", "d")))
    state, said = commands(state, c.Tick(), c.Present("b"), at=60.0)
    assert said == [], "who was asked and is back has its work already"
    state, said = commands(state, c.Present("c"), at=61.0)
    assert said == [c.Ask(("c",), 2)]
    state, said = commands(state, c.Present("d"), at=62.0)
    assert said == []
    _, said = commands(state, c.Answered("c", True), c.Answered("b", True), at=63.0)
    assert said == [c.Settle(("b", "c"), {"a": "not needed: enough others had answered"})]


def test_a_cohort_of_which_nobody_is_left_is_over() -> None:
    state, _ = commands(TWO, c.Present("a"), c.Present("b"), c.Open(("a", "b"), reserve=("c",)))
    state, said = commands(state, c.Revoked("a"), c.Revoked("b"))
    assert (said[-1:], state.held) == ([c.Wake(60.0)], True), "there is still c, who may come"
    state, said = commands(state, c.Revoked("c"))
    assert said == [c.Settle((), dict.fromkeys("ab", "revoked by the operator"))]


def test_a_failure_is_lost_for_its_reason() -> None:
    terms = Synchronous(clients=2, quorum=0.5)
    state, _ = commands(c.State(terms), c.Present("a"), c.Present("b"), c.Open(("a", "b")))
    _, said = commands(state, c.Failed("a", "no space"), c.Answered("b", True))
    assert said[-1] == c.Settle(("b",), {"a": "failed: no space"})


Coordinator.TestCase.settings = settings(settings.default, max_examples=60, stateful_step_count=30)
TestCoordinator = Coordinator.TestCase


@pytest.mark.slow
class TestCoordinatorForLonger(Coordinator.TestCase):
    settings = settings(settings.default, max_examples=1000, stateful_step_count=30)


def test_fewer_answers_than_are_of_use_settle_nothing() -> None:
    terms = Synchronous(clients=2, quorum=0.5, shortest=5.0, longest=60.0, retries=0)
    open_ = c.Open(("a", "b", "c"), least=3, newcomers=True)
    state, said = commands(c.State(terms), c.Present("a"), c.Present("b"), open_)
    assert said == [c.Ask(("a", "b"), 3), c.Wake(60.0)]
    state, said = commands(state, c.Answered("a", True), c.Answered("b", True), c.Tick(), at=60.0)
    assert not any(isinstance(command, c.Settle) for command in said)
    assert state.waits_for == "1 more client: 2 have answered, and 3 must"
    state, said = commands(state, c.Present("d"), at=100.0)
    assert said == [c.Ask(("d",), 3)], "who joins anew takes the place of who is missing"
    _, said = commands(state, c.Answered("d", True), at=101.0)
    assert said == [c.Settle(("a", "b", "d"), {})]


def test_newcomers_are_not_asked_where_the_draw_is_what_counts() -> None:
    state, _ = commands(TWO, c.Present("a"), c.Present("b"), c.Open(("a", "b")))
    _, said = commands(state, c.Answered("a", True), c.Tick(), c.Present("d"), at=60.0)
    assert not any(isinstance(command, c.Ask) for command in said)


def test_an_update_that_cannot_be_added_is_of_no_use_and_another_is_asked_for() -> None:
    terms = Synchronous(clients=2, quorum=0.5, shortest=5.0, longest=60.0, retries=0)
    open_ = c.Open(("a", "b", "c"), reserve=("d",), least=3)
    state, _ = commands(c.State(terms), *map(c.Present, "abc"), open_)
    state, said = commands(state, c.Answered("a", True), c.Answered("b", True), c.Answered("c", False), at=1.0)
    assert not any(isinstance(command, c.Settle) for command in said)
    assert state.waits_for == "1 more client: 3 have answered, 1 of them with what cannot be added, and 3 must"
    mended, said = commands(state, c.Present("c"), at=70.0)
    assert said == [c.Ask(("c",), 3)], "who was refused and has come back may have been mended"
    _, said = commands(mended, c.Answered("c", True), at=71.0)
    assert said == [c.Settle(("a", "b", "c"), {})]
    state, said = commands(state, c.Present("d"), at=70.0)
    assert said == [c.Ask(("d",), 3)]
    _, said = commands(state, c.Answered("d", True), at=71.0)
    assert said == [c.Settle(("a", "b", "c", "d"), {})], "c's is there too, and is not added"


def test_others_are_asked_at_once_where_fewer_were_drawn_than_are_of_use() -> None:
    _, said = commands(TWO, *map(c.Present, "abcd"), c.Open(("b",), reserve=("d", "a", "c"), least=3))
    assert said == [c.Ask(("b", "d", "a"), 3), c.Wake(60.0)]


def test_a_round_of_which_all_are_refused_is_over_when_nobody_else_is_here() -> None:
    state, _ = commands(TWO, *map(c.Present, "abd"), c.Open(("a", "b"), reserve=("d", "e")))
    state, said = commands(state, c.Answered("a", False), c.Answered("b", False))
    assert said[-1] == c.Ask(("d",), 2), "who else is here can tell whether it is the training or these two"
    for counts in (True, False):
        _, said = commands(state, c.Answered("d", counts))
        assert said == [c.Settle(("a", "b", "d"), {})]
    rested, said = commands(state, c.Failed("d", "no space"))
    assert (said, rested.held) == ([], True)
    assert rested.waits_for == "1 more client: 2 have answered, 2 of them with what cannot be added, and 2 must"


def test_nothing_is_settled_without_the_client_that_all_are_measured_by() -> None:
    terms = Synchronous(clients=2, quorum=0.5, shortest=5.0, longest=60.0, retries=0)
    open_ = c.Open(("a", "b", "root"), essential=("root",))
    state, said = commands(c.State(terms), c.Present("a"), c.Present("b"), open_)
    assert said == []
    assert state.waits_for == "the client by whose update all others are measured: it is not here"
    state, said = commands(state, c.Present("root"))
    assert said == [c.Ask(("root", "a", "b"), 3), c.Wake(60.0)]
    state, said = commands(state, c.Answered("a", True), c.Answered("b", True), c.Tick(), at=60.0)
    assert not any(isinstance(command, c.Settle) for command in said)
    assert state.waits_for == "an update that can be added of the client by whose update all others are measured"
    state, said = commands(state, c.Answered("root", False), at=61.0)
    assert said == []
    state, said = commands(state, c.Present("root"), at=62.0)
    assert said == [c.Ask(("root",), 3)]
    _, said = commands(state, c.Answered("root", True), at=63.0)
    assert said == [c.Settle(("a", "b", "root"), {})]


def test_what_nobody_else_can_mend_is_void_when_its_time_is_up() -> None:
    state, _ = commands(TWO, *map(c.Present, "abc"), c.Open(("a", "b", "c")))
    state, said = commands(state, c.Needed(3, lapses=True), c.Answered("a", True), c.Failed("b", "no space"), at=2.0)
    assert said[-1] == c.Wake(60.0)
    state, said = commands(state, c.Tick(), at=60.0)
    assert said == [c.Void(("c", "b"), {"b": "failed: no space", "c": c.SILENT})]
    assert state.present == {"a"}, "neither is counted on in the next round"
    assert state.stage is None


def test_judges_who_do_not_come_are_waited_for_once() -> None:
    state, said = commands(TWO, *map(c.Present, "ab"), c.Open(("a", "b", "c"), least=3, lapses=True))
    assert (said, state.held) == ([c.Wake(60.0)], True)
    assert state.waits_for == "3 of the clients that were drawn: fewer are here"
    _, said = commands(state, c.Tick(), at=60.0)
    assert said == [c.Void((), {})]
    _, said = commands(state, c.Present("c"), at=30.0)
    assert said == [c.Ask(("a", "b", "c"), 3), c.Wake(90.0)]
    _, said = commands(TWO, *map(c.Present, "ab"), c.Open(("a", "b"), least=3, lapses=True))
    assert said == [c.Void((), {})], "there is nobody to wait for"


def test_masks_are_not_asked_for_where_too_few_could_share_them() -> None:
    state, said = commands(TWO, *map(c.Present, "abc"), c.Open(("a", "b"), least=3, closed=True))
    assert said == [c.Void((), {})], "nobody else can take part"
    state, said = commands(TWO, *map(c.Present, "abc"), c.Open(("a", "b", "c"), least=3, closed=True))
    assert isinstance(said[0], c.Ask)
    _, said = commands(state, c.Revoked("b"))
    assert said == [c.Void((), {"b": "revoked by the operator"})]


def test_judges_are_not_waited_for_longer_because_everybody_else_has_gone() -> None:
    state, said = commands(TWO, c.Present("d"), c.Present("e"), c.Open(("a",), least=1, lapses=True))
    assert said == [c.Wake(60.0)]
    state, _ = commands(state, c.Revoked("e"), at=10.0)
    _, said = commands(state, c.Tick(), at=60.0)
    assert said == [c.Void((), {})]


def test_a_round_that_has_begun_is_judged_by_who_is_left_of_as_many_as_it_began_with() -> None:
    """A quorum settled its training. In its judging whoever is away has so long to come, and no longer; before the next round, ever so long."""
    alone = c.State(TWO.terms)
    state, said = commands(alone, c.Present("a"), c.Open(("a", "b"), begins=False))
    assert said == [c.Wake(60.0)]
    assert state.waits_for == "1 more client to join: 1 of 2 are here"
    _, said = commands(state, c.Present("b"), at=30.0)
    assert said == [c.Ask(("a", "b"), 2), c.Wake(90.0)], "a coordinator that was started again asks everybody"
    state, said = commands(state, c.Tick(), at=60.0)
    assert said == [c.Ask(("a",), 1), c.Wake(120.0)]
    state, said = commands(alone, c.Open(("a", "b"), begins=False), c.Tick(), at=60.0)
    assert (said, state.held) == ([], True), "nobody is there whom time could bring to judge"
    _, said = commands(alone, c.Present("a"), c.Open(("a", "b")))
    assert said == []


def test_a_settled_sum_is_opened_in_time_or_void() -> None:
    state, _ = commands(TWO, *map(c.Present, "abc"))
    state, said = commands(state, c.Sealed("agreement", ("a", "b")))
    assert said == [c.Wake(60.0)]
    assert state.waits_for == "2 clients to open the sum of the updates"
    state, said = commands(state, c.Sealed("unmasking", ("b", "c")), at=50.0)
    assert said == [c.Wake(110.0)], "each step has its time"
    opened, said = commands(state, c.Unsealed(), at=109.0)
    assert (said, opened.seal) == ([], None)
    state, said = commands(state, c.Tick(), at=110.0)
    assert said == [c.Void(("b", "c"), {"b": c.SILENT, "c": c.SILENT})]
    assert state.present == {"a"}


def test_who_says_why_it_opens_no_sum_is_not_waited_for_and_not_called_silent() -> None:
    state, _ = commands(TWO, *map(c.Present, "abc"))
    state, said = commands(state, c.Sealed("unmasking", ("b", "c"), {"b": "a share is wrong"}))
    assert said == [c.Wake(60.0)], "c may come yet"
    late, said = commands(state, c.Tick(), at=60.0)
    assert said == [c.Void(("b", "c"), {"b": "a share is wrong", "c": c.SILENT})]
    assert late.present == {"a", "b"}
    state, said = commands(state, c.Sealed("unmasking", ("b",), {"b": "a share is wrong", "a": "late"}))
    assert said == [c.Void(("b",), {"b": "a share is wrong"})], "nobody is left who could open it"
    assert state.present == {"a", "b", "c"}


def test_nobody_is_asked_before_those_are_back_for_want_of_whom_rounds_were_void() -> None:
    open_ = c.Open(("a", "b", "c"), awaited={"a": "lyon", "d": "nice"})
    state, said = commands(TWO, *map(c.Present, "abc"), open_)
    assert (said, state.held) == ([], True)
    assert state.waits_for.startswith("lyon, nice: without them")
    waiting, said = commands(state, c.Present("d"))
    assert said == []
    for event in (c.Present("a"), c.Resume(), c.Revoked("a")):
        _, said = commands(waiting, event)
        assert isinstance(said[0], c.Ask), event
