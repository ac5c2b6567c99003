"""Federated training as a program: which job comes next, and what its total does to the state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from koinon import exact, keys, tree
from koinon.core.events import RoundRecord
from koinon.core.execution import Plan
from koinon.core.protocols import Budgeted, Dataset
from koinon.core.types import Job, Partial, Purpose, RoundFacts, Rows, Tasks, Variables
from koinon.errors import ConfigurationError
from koinon.metrics import EXAMPLES
from koinon.privacy.hiding import hiding
from koinon.privacy.mechanism import Mechanism
from koinon.privacy.releases import Releases
from koinon.privacy.sampling import Scheduled
from koinon.round.evaluation import client_figures, federated
from koinon.round.hidden import hidden
from koinon.round.judges import able, left_out
from koinon.round.settle import settle
from koinon.round.stopping import Stop, Watch
from koinon.tree import Array, Tree


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How often the global model is judged: every ``every`` rounds and in the last one.

    ``clients`` caps how many clients judge it on their held-out examples, a fresh draw each time; None is all.
    """

    every: int = 1
    clients: int | None = 1000

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigurationError(f"Evaluation.every must be at least 1 round; found {self.every!r}.")


@dataclass(frozen=True)
class Done:
    """The run is over."""

    reason: str


@dataclass(frozen=True)
class State:
    """Where a run stands. ``phase`` is the job to come; a round is finished when it is TRAIN again."""

    round: int
    server: Tree
    watch: Watch = field(default_factory=Watch)
    best: Tree = field(default_factory=dict)
    phase: Purpose = Purpose.TRAIN
    figures: dict[str, float] = field(default_factory=dict)
    rows: Rows | None = None
    judged: dict[str, dict[str, float]] = field(default_factory=dict)  # the clients' own, at the last evaluation
    void: dict[str, str] = field(default_factory=dict)  # which part of the round has no result, and why


@dataclass(frozen=True)
class FederatedTraining:
    """The loop of McMahan et al. 2017: sample, train, aggregate, update, judge, until a stop."""

    plan: Plan
    stop: Stop
    evaluation: Evaluation
    seed: int
    releases: Releases | None = None  # where a step of the channel adds noise
    _made: dict[int, Tasks] = field(default_factory=dict, init=False, repr=False, compare=False)

    def initial_key(self) -> Array:
        """Return the key the model is initialised with."""
        return keys.fold(keys.root(self.seed), keys.Purpose.INITIAL.value)

    def init(self, variables: Variables) -> State:
        """Return the state before the first round."""
        return State(0, self.plan.algorithm.server.init(variables))

    def next(self, state: State, elapsed: float) -> Job | Done:
        """Return the job that begins the next round, or why there is none.

        ``elapsed`` is the run's wall time in seconds.
        """
        if self.releases is not None:
            self.releases.remember(state.round)
        reason = self._over(state, elapsed)
        if reason is not None:
            return Done(reason)
        number, server = state.round + 1, self.plan.algorithm.server
        tasks = self.tasks(number)
        return Job(
            Purpose.TRAIN,
            number,
            len(tasks),
            server.broadcast(state.server),
            tasks,
            following=partial(self.tasks, number + 1),
        )

    def tasks(self, number: int) -> Tasks:
        """Return who takes part in a round and with which keys; the last two answers are remembered."""
        if number not in self._made:
            clients = self._cohort(number)
            self._made.pop(number - 2, None)
            self._made[number] = self.tasks_of(self.plan.data, clients, number)
        return self._made[number]

    def _cohort(self, number: int) -> Array:
        population = len(self.plan.data)
        if self.releases is not None and self.releases.central:
            return self.releases.cohort(population, number)
        sampler = self.plan.algorithm.sampler
        if isinstance(sampler, Scheduled):
            return sampler.turn(population, number)
        return sampler.cohort(population, keys.fold(keys.root(self.seed), keys.Purpose.COHORT.value, number))

    def absorb(self, state: State, total: Partial) -> State:
        """Return the state after a job's total."""
        if (step := hiding(self.plan.algorithm)) is not None and state.phase is not Purpose.TEST:
            noise = None if self.releases is None else partial(self.releases.stand_in, state.round + 1)
            total = hidden(step, state.phase, total, self.plan.data.names, noise)
        if state.phase is Purpose.TRAIN:
            return self._settled(state, total)
        figures = dict(state.figures)
        if state.phase is Purpose.EVALUATE:
            state = replace(state, void={**state.void, **_void(Purpose.EVALUATE, total.rows.void)})
            each = client_figures(self.plan.model, total.rows)
            figures.update(federated(self.plan.model, total.rows, each))
            state = replace(state, judged={self.plan.data.names[i]: own for i, own in each.items()})
            following = Purpose.TEST if self.plan.test is not None else Purpose.TRAIN
        else:
            test = self.plan.model.finish(total.rows.sums())
            figures.update({f"test_{name}": value for name, value in test.items()})
            following = Purpose.TRAIN
        state = replace(state, figures=figures, phase=following)
        return self._watched(state) if following is Purpose.TRAIN else state

    def record(self, state: State, seconds: float) -> RoundRecord:
        """Return the history's row of the round that has just finished."""
        assert state.rows is not None, "only a finished round has a record"
        names = self.plan.data.names
        refused = {names[i]: leaves for i, leaves in state.rows.refused().items()}
        lost = {names[i]: why for i, why in state.rows.lost.items()}
        cohort = len(state.rows) + len(lost)
        return RoundRecord(state.round, cohort, refused, state.figures, seconds, state.rows, lost, state.void)

    def _settled(self, state: State, total: Partial) -> State:
        algorithm, number = self.plan.algorithm, state.round + 1
        server = state.server
        if (settled := self._aggregate(state, total, number)) is not None:
            server = tree.to_numpy(algorithm.server.apply(server, *settled))
        sums = total.rows.sums()
        seen = float(sums[EXAMPLES]) if sums else 0.0
        figures = {f"train_{name}": value for name, value in self.plan.model.finish(sums).items()} if seen else {}
        void = _void(Purpose.TRAIN, total.rows.void)
        state = replace(state, round=number, server=server, figures=figures, rows=total.rows, void=void)
        return self._to_be_judged(state) if self._judged(number) else replace(state, phase=Purpose.TRAIN)

    def _to_be_judged(self, state: State) -> State:
        """Return the state with the phase in which somebody judges the model, if anybody can."""
        plan = self.plan
        reason = self._left_out()
        state = replace(state, void={**state.void, **_void(Purpose.EVALUATE, reason)})
        if plan.data.has_held_out and reason is None:
            return replace(state, phase=Purpose.EVALUATE)
        if plan.test is not None:
            return replace(state, phase=Purpose.TEST)
        return self._watched(state)

    def _left_out(self) -> str | None:
        return left_out(self.plan.algorithm, self.plan.data, self.evaluation.clients)

    def _aggregate(self, state: State, total: Partial, number: int) -> tuple[Tree, RoundFacts] | None:
        """Return what the server is given; None where nobody took part, unless noise alone is a release too."""
        algorithm, names, population = self.plan.algorithm, self.plan.data.names, len(self.plan.data)
        if total.rows.void is not None:  # not even of noise: nothing is released, whatever the ledger was charged
            return None
        if self.releases is None or not self.releases.central:
            accepted = int(np.count_nonzero(total.rows.weights))
            facts = RoundFacts(number, accepted, population)
            return (settle(algorithm, total, names), facts) if len(total.rows) else None
        value = total.total
        if not tree.leaves(value):  # an update has the shape of what was broadcast
            value = exact.zero(algorithm.server.broadcast(state.server))
        expected = self.releases.expected(population)  # never who came: that would tell of them
        noisy = replace(total, total=self.releases.release(number, value), weight=expected)
        return settle(algorithm, noisy, names), RoundFacts(number, max(1, round(expected)), population)

    def _watched(self, state: State) -> State:
        if not state.rows or self._unseen(state):  # nobody took part, so nothing has changed; or nobody can say
            return state
        watch = state.watch.seen(self.stop, state.round, state.figures)
        best = state.best
        if watch.best_round == state.round:
            best = self.plan.algorithm.server.variables(state.server)
        return replace(state, watch=watch, best=best)

    def _unseen(self, state: State) -> bool:
        """Return whether the figure that is watched is missing, this once, because an evaluation came to nothing."""
        if Purpose.EVALUATE.value not in state.void:
            return False
        return self._left_out() is None or any(name not in state.figures for name in self.stop.named)

    def judge(self, state: State) -> Job:
        """Return the evaluation that the state's phase asks for."""
        data = self.plan.data if state.phase is Purpose.EVALUATE else self.plan.test
        assert data is not None
        clients = np.arange(len(data), dtype=np.int64)
        if state.phase is Purpose.EVALUATE:
            clients = self._judges(data, state.round)
        broadcast = dict(self.plan.algorithm.server.variables(state.server))
        return Job(state.phase, state.round, len(clients), broadcast, self.tasks_of(data, clients, state.round))

    def _judges(self, data: Dataset, number: int) -> Array:
        """Return those who hold examples out, or as many of them as are asked for."""
        clients = able(data)
        cap = self.evaluation.clients
        if cap is None or cap >= len(clients):
            return clients
        key = keys.fold(keys.root(self.seed), keys.Purpose.JUDGES.value, number)
        return np.sort(clients[np.argsort(keys.bits(key, len(clients)), kind="stable")[:cap]])

    def tasks_of(self, data: Dataset, clients: Array, number: int) -> Tasks:
        """Return what the clients at these positions are asked to do in a round."""
        hashes = keys.name_hash([data.names[i] for i in clients.tolist()])
        own = keys.fold(keys.root(self.seed), keys.Purpose.CLIENT.value, number)
        factor = self.plan.algorithm.work.learning_rate_factor(number)
        rates = np.full(len(clients), factor, np.float32)
        return Tasks(clients, keys.fold(np.broadcast_to(own, (len(clients), 2)), hashes), rates)

    def _judged(self, number: int) -> bool:
        return number % self.evaluation.every == 0 or number >= self.stop.rounds

    def _over(self, state: State, elapsed: float) -> str | None:
        if state.watch.reached is not None:
            return state.watch.reached
        if state.round >= self.stop.rounds:
            return f"rounds: all {self.stop.rounds} are done"
        if self.stop.seconds is not None and elapsed >= self.stop.seconds:
            return f"time: {self.stop.seconds:g} s have passed"
        algorithm = self.plan.algorithm
        parts: tuple[Any, ...] = (*algorithm.channel, algorithm.sampler, algorithm.server, algorithm.work)
        for part in parts:
            if isinstance(part, Budgeted) and (reason := part.exhausted(state.round + 1)) is not None:
                return f"budget: {reason}"
        return self._begun(state.round + 1)

    def _begun(self, number: int) -> str | None:
        """Write down what the round will cost its clients, before it begins; return why it may not."""
        if self.releases is not None:
            reason = self.releases.begin(number, self.stop.rounds - number + 1)
            return None if reason is None else f"budget: {reason}"
        for step in self.plan.algorithm.channel:
            if isinstance(step, Mechanism):
                raise ConfigurationError(
                    f"{step!r} needs secret keys and a ledger, and this run has neither: its noise could not be accounted. "
                    "Run it with koinon.fit or koinon run, or give FederatedTraining its releases."
                )
        return None


def _void(purpose: Purpose, reason: str | None) -> dict[str, str]:
    return {} if reason is None else {purpose.value: reason}
