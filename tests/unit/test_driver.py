"""The driver: every round is committed before the next begins, and a run goes on from any of them as if never left."""

from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon import tree
from koinon.app import App, Resolved, resolve
from koinon.core.events import Checkpoint, RoundFinished, RunFinished, RunStarted
from koinon.round.driver import Outcome, Surroundings, drive
from koinon.round.stopping import Watch
from koinon.round.training import Evaluation, State
from koinon.store.client_states import MemoryStates

HARD: dict[str, Any] = {"epochs": 2, "batch_size": 2, "cohort": 2}  # a cohort, so that states differ
SCAFFOLD = kn.scaffold(kn.sgd(0.3), channel=(kn.Clip(1.0), kn.Quantise()), **HARD)


@dataclass
class Diary:
    """A journal in memory that also hears every event, in one order."""

    written: list[Checkpoint] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    fail_at: int | None = None

    def commit(self, checkpoint: Checkpoint) -> None:
        if checkpoint.round == self.fail_at:
            raise OSError("the disk is full")
        self.written.append(checkpoint)
        self.heard.append(("committed", checkpoint.round))

    def listen(self, event: Any) -> None:
        self.heard.append(event)

    def past(self, round: int) -> tuple[Outcome, MemoryStates]:
        """Return what a later process would load: the checkpoint of a round, and the states of all rounds to it."""
        states, at = MemoryStates(), self.written[round]
        for checkpoint in self.written[: round + 1]:
            if checkpoint.clients is not None:
                states.stage(checkpoint.clients, checkpoint.states)
        records = tuple(c.record for c in self.written[1 : round + 1] if c.record is not None)
        judged = {name: dict(own) for name, own in at.judged.items()}
        return Outcome(State(at.round, at.server, Watch(**at.watch), at.best, judged=judged), "", records), states


def resolved(algorithm: kn.Algorithm, rounds: int = 5, **fields: Any) -> Resolved:
    fields = {"clients": linear.clients(), "holdout": 0.4, **fields}
    return resolve(App(model=linear.LinearModel(), algorithm=algorithm, stop=kn.Stop(rounds=rounds), seed=3, **fields))


def ticking() -> Any:
    """Return a clock on which every look takes half a second."""
    looks = count()
    return lambda: 0.5 * next(looks)


def run(app: Resolved, diary: Diary, past: Outcome | None = None, states: MemoryStates | None = None) -> Outcome:
    with kn.Local("reference") as runtime:
        around = Surroundings(runtime, diary, MemoryStates() if states is None else states, diary.listen, ticking())
        return drive(app.program(), around, past)


def test_a_round_is_committed_before_anybody_hears_of_it() -> None:
    diary = Diary()
    outcome = run(resolved(SCAFFOLD, 2), diary)
    kinds = [event if isinstance(event, tuple) else type(event) for event in diary.heard]
    assert kinds == [
        ("committed", 0), RunStarted, ("committed", 1), RoundFinished, ("committed", 2), RoundFinished, RunFinished,
    ]  # fmt: skip
    started, finished = diary.heard[1], diary.heard[-1]
    assert started == RunStarted("scaffold", clients=3, rounds=2, resumed_from=0)
    assert finished == RunFinished(outcome.stopped, 2, tree.digest(outcome.state.server["params"]))
    assert outcome.stopped == "rounds: all 2 are done"
    assert [record.seconds for record in outcome.history] == [0.5, 0.5], "the clock is looked at twice a round"


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_a_run_that_goes_on_is_the_run_that_never_stopped(at: int) -> None:
    app, diary = resolved(SCAFFOLD), Diary()
    straight = run(app, diary)
    past, states = diary.past(at)
    later = Diary()
    resumed = run(app, later, past, states)
    assert tree.digest(resumed.state.server) == tree.digest(straight.state.server)
    assert tree.digest(resumed.state.best) == tree.digest(straight.state.best)
    assert resumed.state.watch == straight.state.watch
    assert [r.figures for r in resumed.history] == [r.figures for r in straight.history]
    assert [c.round for c in later.written] == list(range(at + 1, 6)), "nothing is written twice"
    for own, other in zip(later.written, diary.written[at + 1 :], strict=True):
        assert tree.digest(own.states) == tree.digest(other.states)


def test_a_round_that_was_not_written_did_not_happen() -> None:
    """A full disk in round 3: nothing of it shows, and the run goes on from round 2 to the same end."""
    app, whole, broken = resolved(SCAFFOLD), Diary(), Diary(fail_at=3)
    straight = run(app, whole)
    states = MemoryStates()
    with pytest.raises(OSError, match="the disk is full"):
        run(app, broken, states=states)
    assert [c.round for c in broken.written] == [0, 1, 2]
    assert not any(isinstance(e, RoundFinished) and e.record.round == 3 for e in broken.heard)
    _, committed = whole.past(2)
    everybody = np.arange(3)
    initial = {"work": {"control": tree.zeros(straight.state.server["params"])}, "channel": {"0": {}, "1": {}}}
    assert tree.digest(states.read(everybody, initial)) == tree.digest(committed.read(everybody, initial))
    past, _ = broken.past(2)
    assert tree.digest(run(app, Diary(), past, states).state.server) == tree.digest(straight.state.server)


def test_only_clients_that_took_part_are_written_down() -> None:
    diary = Diary()
    outcome = run(resolved(SCAFFOLD, 1), diary)
    rows = outcome.history[0].rows
    assert rows is not None
    assert diary.written[1].clients is not None
    assert diary.written[1].clients.tolist() == rows.clients.tolist()
    assert diary.written[1].states["work"]["control"]["w"].shape == (2, 2)
    stateless = Diary()
    run(resolved(kn.fedavg(), 1), stateless)
    assert stateless.written[1].clients is None
    assert stateless.written[1].states == {}


def diverging(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: (x * np.float32(1e20 if name in names else 1), y) for name, (x, y) in linear.clients().items()}


def test_a_client_that_diverges_is_refused_by_name_and_the_run_goes_on() -> None:
    app = resolved(SCAFFOLD, clients=diverging(("site-1",)), holdout=0.0)
    outcome = run(app, diary := Diary())
    assert outcome.state.round == 5
    refused = [record.refused for record in outcome.history]
    assert {name for names in refused for name in names} == {"site-1"}
    assert "params.w" in next(leaves for names in refused for leaves in names.values())
    assert all(np.isfinite(leaf).all() for leaf in tree.leaves(outcome.state.server))
    assert all(np.isfinite(leaf).all() for c in diary.written for leaf in tree.leaves(c.states)), (
        "its old state is kept"
    )


def test_a_refused_client_counts_for_nothing() -> None:
    """The model is that of a round of the others alone, when no key and no limit knows of it."""
    both = run(resolved(kn.fedsgd(0.1), clients=diverging(("site-1",)), holdout=0.0), Diary())
    others = {name: own for name, own in linear.clients().items() if name != "site-1"}
    alone = run(resolved(kn.fedsgd(0.1), clients=others, holdout=0.0), Diary())
    assert tree.digest(both.state.server) == tree.digest(alone.state.server)
    assert [r.figures for r in both.history] == [r.figures for r in alone.history]


def test_a_round_of_which_nobody_is_left_ends_the_run_and_says_so() -> None:
    diary = Diary()
    everybody = ("site-0", "site-1", "site-2")
    outcome = run(resolved(kn.fedavg(kn.sgd(0.3)), clients=diverging(everybody), holdout=0.0), diary)
    assert outcome.stopped.startswith(
        "diverged: All 3 clients of the round were refused ('site-0', 'site-1', 'site-2')"
    )
    assert outcome.state.round == 0
    assert [c.round for c in diary.written] == [0], "the round that nobody survived is not written down"
    assert isinstance(diary.heard[-1], RunFinished)


def test_the_time_of_earlier_sessions_counts() -> None:
    app, diary = resolved(kn.fedavg()), Diary()
    run(app, diary)
    past, _ = diary.past(3)
    assert sum(record.seconds for record in past.history) == 1.5
    limited = replace(app, stop=kn.Stop(seconds=1.9))
    outcome = run(limited, Diary(), past)
    assert (outcome.state.round, outcome.stopped) == (4, "time: 1.9 s have passed")


def test_listeners_and_judges_do_not_change_a_run() -> None:
    quiet = run(replace(resolved(SCAFFOLD), evaluation=Evaluation(every=5)), Diary())
    assert tree.digest(quiet.state.server) == tree.digest(run(resolved(SCAFFOLD), Diary()).state.server)
