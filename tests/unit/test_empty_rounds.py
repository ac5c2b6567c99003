"""Rounds in which nobody takes part, and judges who have nothing to judge on."""

from dataclasses import replace

import numpy as np
import pytest

import koinon as kn
from koinon import tree
from koinon.core.execution import Plan
from koinon.core.types import Purpose
from koinon.round.training import FederatedTraining, State
from koinon.testing.models import SoftmaxRegression
from koinon.testing.samples import classified

MODEL = SoftmaxRegression()
RARE = kn.Poisson(0.1)  # of seven clients: every other round is empty


def program(**fields) -> FederatedTraining:
    return FederatedTraining(Plan(kn.fedavg(kn.sgd(0.3)), MODEL, classified()), kn.Stop(), kn.Evaluation(**fields), 1)


@pytest.mark.parametrize("engine", ["reference", "jax"])
def test_clients_keep_their_states_over_rounds_without_anybody(engine: str) -> None:
    algorithm = kn.scaffold(kn.sgd(0.1), batch_size=4, cohort=RARE)
    run = kn.fit(MODEL, classified(), algorithm, stop=kn.Stop(rounds=12), engine=engine, progress=False)
    sizes = [record.cohort for record in run.history.records]
    assert min(sizes) == 0 < max(sizes)
    assert run.rounds == 12


@pytest.mark.parametrize(
    "stop", [kn.Stop(rounds=12, monitor="train_loss"), kn.Stop(rounds=12, target=("train_loss", 0))]
)
def test_a_figure_of_training_may_be_watched_though_some_rounds_train_nobody(stop: kn.Stop) -> None:
    algorithm = kn.fedavg(kn.sgd(0.1), cohort=RARE)
    run = kn.fit(MODEL, classified(), algorithm, stop=stop, engine="reference", progress=False)
    assert run.rounds == 12
    assert any("train_loss" not in record.figures for record in run.history.records)


def test_patience_does_not_run_out_while_nobody_takes_part() -> None:
    algorithm = kn.fedavg(kn.sgd(0.1), cohort=kn.Poisson(1e-9))
    stop = kn.Stop(rounds=6, patience=2)
    run = kn.fit(MODEL, classified(), algorithm, stop=stop, engine="reference", progress=False)
    assert run.stopped.startswith("rounds")
    assert tree.digest(run.best) == tree.digest(run.variables)


def test_only_clients_that_hold_examples_out_judge() -> None:
    """One client has a single example. However few judges are drawn, it is never the only one."""
    state = State(1, {**MODEL.init(np.zeros(2, np.uint32))}, phase=Purpose.EVALUATE)
    assert program().judge(state).tasks.clients.tolist() == [0, 1, 2, 3, 5, 6]
    juries = [program(clients=2).judge(replace(state, round=number)).tasks.clients.tolist() for number in range(60)]
    assert all(first < second for first, second in juries)
    assert {client for jury in juries for client in jury} == {0, 1, 2, 3, 5, 6}


def test_every_round_is_judged_however_few_judges_are_asked_for() -> None:
    run = kn.fit(
        MODEL,
        classified(),
        kn.fedavg(kn.sgd(0.1)),
        stop=kn.Stop(rounds=30),
        evaluation=kn.Evaluation(clients=1),
        engine="reference",
        progress=False,
    )
    assert all("loss" in record.figures for record in run.history.records)
