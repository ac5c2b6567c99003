"""Every reason a run can end for, in words a person understands, and wishes that cannot be met."""

import math

import pytest

import koinon as kn
import linear
from koinon.errors import ConfigurationError
from koinon.round.stopping import Watch, monitored

FIGURES = {"loss": 0.4, "accuracy": 0.8, "train_loss": 0.3}


def test_a_reached_target_says_what_was_reached() -> None:
    watch = Watch().seen(kn.Stop(target=("accuracy", 0.75)), 1, FIGURES)
    assert watch.reached == "target: accuracy 0.8 reached 0.75"
    assert Watch().seen(kn.Stop(target=("loss", 0.4)), 1, FIGURES).reached == "target: loss 0.4 reached 0.4"
    assert Watch().seen(kn.Stop(target=("accuracy", 0.81)), 1, FIGURES).reached is None


def test_convergence_says_for_how_long_nothing_happened() -> None:
    watch, stop = Watch(), kn.Stop(patience=2, minimum_change=0.01)
    for round, loss in enumerate([0.5, 0.495, 0.492], 1):
        watch = watch.seen(stop, round, {"loss": loss})
    assert watch.reached == "converged: loss has not improved by more than 0.01 for 2 rounds"
    assert watch.best_round == 3


def test_a_figure_that_is_no_number_is_no_improvement_and_no_failure() -> None:
    watch = Watch(best=0.5, best_round=1, anchor=0.5)
    assert watch.seen(kn.Stop(patience=1), 2, {"loss": math.nan}) == watch


def test_the_held_out_loss_is_watched_before_the_servers_and_the_training_loss() -> None:
    assert monitored(kn.Stop(), {"loss": 1.0, "test_loss": 1.0, "train_loss": 1.0}) == "loss"
    assert monitored(kn.Stop(), {"test_loss": 1.0, "train_loss": 1.0}) == "test_loss"
    assert monitored(kn.Stop(), {"train_loss": 1.0}) == "train_loss"
    assert monitored(kn.Stop(monitor="accuracy"), FIGURES) == "accuracy"


@pytest.mark.parametrize("stop", [kn.Stop(monitor="acuracy"), kn.Stop(target=("acuracy", 0.9))])
def test_a_figure_that_no_round_has_is_refused_with_those_it_has(stop: kn.Stop) -> None:
    with pytest.raises(ConfigurationError, match="'acuracy', but a round has only accuracy, loss, train_loss"):
        Watch().seen(stop, 1, FIGURES)


@pytest.mark.parametrize("fields", [{"rounds": -1}, {"rounds": 2.5}, {"patience": 0}])
def test_a_stop_out_of_range_is_refused(fields) -> None:
    with pytest.raises(ConfigurationError, match=f"Stop.{next(iter(fields))}"):
        kn.Stop(**fields)


def test_a_run_of_no_rounds_is_the_first_model() -> None:
    run = linear.train(kn.fedavg(), 0)
    assert (run.rounds, run.stopped, run.metrics) == (0, "rounds: all 0 are done", {})
    assert run.params["w"].tolist() == linear.WEIGHTS.tolist()


def test_wall_time_ends_a_run() -> None:
    run = kn.fit(linear.LinearModel(), linear.clients(), stop=kn.Stop(seconds=1e-9), progress=False)
    assert (run.rounds, run.stopped) == (1, "time: 1e-09 s have passed")


class Spent(kn.Uniform):
    """A sampler with a budget."""

    def exhausted(self, round: int) -> str | None:
        return "two rounds were paid for" if round > 2 else None


def test_a_part_that_declares_a_budget_ends_the_run_when_it_is_spent() -> None:
    run = linear.train(kn.fedavg(cohort=Spent(2)), 9)
    assert (run.rounds, run.stopped) == (2, "budget: two rounds were paid for")


def test_the_model_of_the_best_round_is_kept() -> None:
    """A learning rate that overshoots: the first rounds are better than the last."""
    run = linear.train(kn.fedavg(kn.sgd(0.25), schedule=Growing()), 6, holdout=0.4)
    losses = dict(run.history.column("loss"))
    assert run.best_round == min(losses, key=losses.__getitem__) < 6
    again = linear.train(kn.fedavg(kn.sgd(0.25), schedule=Growing()), run.best_round, holdout=0.4)
    assert run.best["params"]["w"].tolist() == again.params["w"].tolist()
    assert run.params["w"].tolist() != again.params["w"].tolist()


class Growing:
    """A schedule that goes wrong."""

    def factor(self, round: int) -> float:
        return 2.0**round
