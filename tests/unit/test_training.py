"""Federated training as a program: who takes part with which keys, how the model is judged, what is remembered."""

from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon import metrics, tree
from koinon.app import App, Resolved, resolve
from koinon.core.types import Job, Purpose
from koinon.errors import ConfigurationError
from koinon.round.evaluation import EVALUATION, federated
from koinon.round.training import Done, FederatedTraining, State


def resolved(algorithm: kn.Algorithm | None = None, **fields: Any) -> Resolved:
    fields = {"clients": linear.clients((4, 6, 10)), "holdout": 0.5, **fields}
    return resolve(App(model=linear.LinearModel(), algorithm=algorithm or kn.fedavg(), **fields))


def begun(app: Resolved) -> tuple[FederatedTraining, State]:
    program = app.program()
    return program, program.init(app.plan.model.init(program.initial_key()))


def next_job(program: FederatedTraining, state: State) -> Job:
    job = program.next(state, 0.0)
    assert isinstance(job, Job)
    return job


def test_a_round_asks_its_cohort_with_keys_of_seed_round_and_name() -> None:
    app = resolved(kn.fedavg(cohort=2))
    program, state = begun(app)
    first, again = (next_job(program, state) for _ in range(2))
    assert (first.purpose, first.round, first.cohort, len(first.tasks)) == (Purpose.TRAIN, 1, 2, 2)
    assert first.tasks.keys.tolist() == again.tasks.keys.tolist()
    assert len({tuple(key) for number in range(1, 20) for key in program.tasks(number).keys.tolist()}) == 19 * 2
    other, begin = begun(resolved(kn.fedavg(cohort=2), seed=1))
    assert next_job(other, begin).tasks.keys.tolist() != first.tasks.keys.tolist()


def test_a_clients_key_does_not_depend_on_who_else_there_is() -> None:
    everybody = begun(resolved())[0].tasks(4)
    fewer = resolved(clients={name: own for name, own in linear.clients((4, 6, 10)).items() if name != "site-1"})
    assert begun(fewer)[0].tasks(4).keys.tolist() == everybody.keys[[0, 2]].tolist()


def test_the_tasks_of_a_round_are_the_same_whenever_they_are_asked_for() -> None:
    ahead, late = begun(resolved(kn.fedavg(cohort=2)))[0], begun(resolved(kn.fedavg(cohort=2)))[0]
    for number in (1, 2, 3):
        ahead.tasks(number + 1)  # the next round's, as a runtime asks while it waits
        assert ahead.tasks(number).clients.tolist() == late.tasks(number).clients.tolist()
        assert ahead.tasks(number).keys.tolist() == late.tasks(number).keys.tolist()


def test_the_schedule_sets_every_tasks_rate() -> None:
    program, _ = begun(resolved(kn.fedavg(schedule=kn.Exponential(0.5))))
    assert [program.tasks(number).learning_rates.tolist() for number in (1, 2, 3)] == [[1] * 3, [0.5] * 3, [0.25] * 3]


def test_a_cohort_larger_than_the_population_is_refused_before_it_begins() -> None:
    with pytest.raises(
        ConfigurationError, match=r"A cohort of 4 clients was asked for, but there are only 3.*Uniform\(3\)"
    ):
        resolved(kn.fedavg(cohort=4))


def run(algorithm: kn.Algorithm | None = None, rounds: int = 3, **fields: Any) -> kn.Run:
    fields = {"clients": linear.clients((4, 6, 10)), "holdout": 0.5, **fields}
    model = linear.LinearModel(measures=(kn.MeanSquaredError(),))
    return kn.fit(model, fields.pop("clients"), algorithm, stop=kn.Stop(rounds=rounds), progress=False, **fields)


def losses(params: Any, x: Any, y: Any) -> Any:
    return 0.5 * (np.asarray(x, float) @ params["w"] + params["b"] - y) ** 2


def test_the_figures_are_of_all_held_out_examples_and_over_clients() -> None:
    """By hand, from the final parameters and the rows that the dataset holds out."""
    done = run()
    data, each = done.plan.data, []
    for client in range(3):
        start, count = data.span(np.array(client), held_out=True)
        rows = data.order()[start : start + count]
        each.append(losses(done.params, data.x[rows], data.y[rows]))
    means = np.array([own.mean() for own in each])
    figures = done.metrics
    assert figures["loss"] == pytest.approx(np.concatenate(each).mean(), rel=1e-5), "every example counts the same"
    assert figures["loss_mean"] == pytest.approx(means.mean(), rel=1e-5), "every client counts the same"
    assert figures["loss_worst"] == pytest.approx(means.max(), rel=1e-5), "of a loss the largest is the worst"
    assert figures["loss_spread"] == pytest.approx(means.std(), rel=1e-5)
    assert figures["mse"] == pytest.approx(2 * figures["loss"], rel=1e-6)
    assert {name: own["loss"] for name, own in done.clients.items()} == pytest.approx(
        {f"site-{i}": mean for i, mean in enumerate(means)}, rel=1e-5
    )
    assert {name: own["examples"] for name, own in done.clients.items()} == {"site-0": 2, "site-1": 3, "site-2": 5}


class Sums:
    """Figures that are accuracies."""

    def finish(self, sums: Any) -> dict[str, float]:
        return metrics.finish([kn.Accuracy()], sums)


def test_of_an_accuracy_the_smallest_is_the_worst_and_clients_without_one_are_left_out() -> None:
    from koinon.core.types import Rows

    columns = {"examples": np.float32([4, 6]), "loss": np.float32([1, 2]), "accuracy": np.float32([1, 6])}
    rows = Rows(np.arange(2), np.ones(2), columns, np.ones((2, 0), bool), ())
    each = {
        0: {"loss": 0.25, "accuracy": 0.25},
        1: {"loss": 2 / 6, "accuracy": 1.0},
        2: {"loss": 0.1, "accuracy": np.nan},
    }
    figures = federated(Sums(), rows, each)
    assert (figures["accuracy"], figures["accuracy_mean"], figures["accuracy_worst"]) == (0.7, 0.625, 0.25)
    assert figures["accuracy_spread"] == 0.375


def test_the_servers_own_examples_are_judged_beside_the_clients() -> None:
    x, y = linear.clients((7,))["site-0"]
    done = run(test=(x, y))
    assert done.metrics["test_loss"] == pytest.approx(losses(done.params, x, y).mean(), rel=1e-5)
    assert "loss_worst" in done.metrics
    only = run(test=(x, y), holdout=0.0)
    assert "loss" not in only.metrics
    assert "test_loss" in only.metrics


def test_the_model_is_judged_every_so_often_and_in_the_last_round() -> None:
    done = run(rounds=5, evaluation=kn.Evaluation(every=2))
    assert [round for round, _ in done.history.column("loss")] == [2, 4, 5]
    assert [round for round, _ in done.history.column("train_loss")] == [1, 2, 3, 4, 5]


def test_as_many_clients_judge_as_are_wanted_and_not_always_the_same() -> None:
    many = linear.clients(tuple(range(4, 14)))
    done = run(rounds=6, clients=many, evaluation=kn.Evaluation(clients=3))
    program = FederatedTraining(done.plan, kn.Stop(), kn.Evaluation(clients=3), done.seed)
    juries = [
        program.judge(State(number, done.outcome.state.server, phase=Purpose.EVALUATE)).tasks.clients.tolist()
        for number in range(1, 7)
    ]
    assert all(len(jury) == 3 == len(set(jury)) and jury == sorted(jury) for jury in juries)
    assert len({tuple(jury) for jury in juries}) > 1
    assert set(done.clients) == {f"site-{i}" for i in juries[-1]}


@pytest.mark.parametrize("every", [0, -1])
def test_a_period_is_at_least_a_round(every: int) -> None:
    with pytest.raises(ConfigurationError, match=r"Evaluation\.every"):
        kn.Evaluation(every=every)


def test_an_empty_cohort_is_a_round_that_changes_nothing() -> None:
    done = run(kn.fedavg(cohort=kn.Poisson(1e-9)), 2)
    assert done.rounds == 2
    assert done.params["w"].tolist() == linear.WEIGHTS.tolist()
    assert [record.cohort for record in done.history] == [0, 0]
    assert "train_loss" not in done.metrics
    assert "loss" in done.metrics, "the model is judged all the same"
    nobody_judges = run(kn.fedavg(cohort=kn.Poisson(1e-9)), 2, holdout=0.0)
    assert nobody_judges.metrics == {}


def test_cohorts_of_chance_are_settled_among_those_who_came() -> None:
    done = run(kn.fedavg(cohort=kn.Poisson(0.4)), 8)
    sizes = [record.cohort for record in done.history]
    assert len(set(sizes)) > 1
    assert done.rounds == 8


def test_it_is_over_for_the_reason_that_came_first() -> None:
    program, state = begun(resolved(stop=kn.Stop(rounds=3, seconds=10)))
    assert program.next(state, 10.0) == Done("time: 10 s have passed")
    assert isinstance(program.next(state, 9.9), Job)
    assert program.next(State(3, state.server), 0.0) == Done("rounds: all 3 are done")


def test_judging_sends_no_update_and_keeps_no_state() -> None:
    work = EVALUATION.work
    broadcast = {"params": {"w": np.ones(2)}, "state": {}}
    carry = work.begin(None, broadcast, {})  # type: ignore[arg-type]
    update, kept = work.finish(None, broadcast, carry)  # type: ignore[arg-type]
    assert (tree.leaves(update.value), kept) == ([], {})
    assert (work.init(broadcast), work.learning_rate_factor(3), work.passes().shuffle) == ({}, 1.0, False)
