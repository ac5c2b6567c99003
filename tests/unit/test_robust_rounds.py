"""Rounds under robust aggregators: who is dealt into which group, what is refused and when, and what a liar achieves."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon import keys, tree
from koinon.app import App, resolve
from koinon.core.types import Job, Partial, Purpose, Rows, Tasks
from koinon.errors import CompositionError, ConfigurationError, DivergedError
from koinon.round.settle import grouped, merge, settle

NAMES = [f"site-{i}" for i in range(40)]


def algorithm(aggregator: Any, **fields: Any) -> kn.Algorithm:
    return kn.replace(kn.fedavg(kn.sgd(0.3), epochs=2, batch_size=2), aggregator=aggregator, **fields)


def job(clients: int, number: int = 1) -> Job:
    own = keys.fold(keys.root(number), np.arange(clients, dtype=np.uint32))
    return Job(Purpose.TRAIN, number, clients, {}, Tasks(np.arange(clients), own, np.ones(clients, np.float32)))


def each(clients: list[int], values: list[float], refused: tuple[int, ...] = ()) -> Partial:
    accepted = np.array([[client not in refused] for client in clients])
    rows = Rows(np.array(clients), np.where(accepted[:, 0], 5, 0).astype(np.float32), {}, accepted, ("w",))
    return Partial({}, int(rows.weights.sum()), rows, {}, {"w": np.float32(values)})


def test_a_cohort_is_dealt_anew_every_round_into_groups_of_nearly_one_size() -> None:
    rule = kn.Bucketed(3)
    rounds = [grouped(rule, job(11, number)).tasks.groups for number in range(1, 30)]
    assert all(sorted(np.bincount(groups)) == [3, 4, 4] for groups in rounds)
    assert len({tuple(groups) for groups in rounds}) == 29
    together = np.mean([groups[0] == groups[1] for groups in rounds])
    assert 0.05 < together < 0.6  # 0.27 by chance


def test_groups_stay_with_their_clients_in_every_chunk() -> None:
    whole = grouped(kn.Bucketed(2), job(7))
    assert grouped(kn.Bucketed(2), whole) is whole
    turned = np.arange(7)[::-1]
    assert whole.chunk(turned).tasks.groups.tolist() == whole.tasks.groups[turned].tolist()
    assert grouped(kn.Median(), job(7)).tasks.groups is None


def test_chunks_of_single_updates_line_up_with_their_rows() -> None:
    whole = merge([each([4, 5], [1, 2]), each([9], [3])])
    assert whole.each["w"].tolist() == [1, 2, 3]
    assert (whole.rows.clients.tolist(), whole.weight, whole.total) == ([4, 5, 9], 15, {})


@dataclass(frozen=True)
class Remembers(kn.Median):
    """An aggregator that tells what it is given."""

    def finish(self, total: Any, weight: Any) -> Any:
        return {"given": total["w"], "weights": weight}


def test_an_aggregator_is_given_the_accepted_in_the_order_of_the_dataset() -> None:
    given = settle(algorithm(Remembers()), each([7, 2, 9, 4], [70, 20, np.inf, 40], refused=(9,)), NAMES)
    assert given["given"].tolist() == [20, 40, 70]
    assert given["weights"].tolist() == [5, 5, 5]
    assert given["weights"].dtype == np.int64


def test_the_trusted_client_comes_first_wherever_it_stands() -> None:
    @dataclass(frozen=True)
    class Given(kn.FLTrust):
        finish = Remembers.finish

    given = settle(algorithm(Given("site-4")), each([2, 4, 7], [20, 40, 70]), NAMES)
    assert given["given"].tolist() == [40, 20, 70]
    with pytest.raises(CompositionError, match=r"by that of 'site-5', which this round does not have"):
        settle(algorithm(kn.FLTrust("site-5")), each([2, 4], [1, 2]), NAMES)


def test_a_cohort_that_shrinks_below_what_the_rule_needs_ends_the_run_by_name() -> None:
    partial = each([0, 1, 2, 3, 4], [1, 2, 3, 4, 5], refused=(3,))
    with pytest.raises(
        DivergedError,
        match=r"Krum\(byzantine=1\) needs at least 5 updates, but has 4.*1 more were refused \('site-3'\)",
    ):
        settle(algorithm(kn.Krum(1)), partial, NAMES)
    with pytest.raises(CompositionError, match="needs at least 7 updates, but has 5"):
        settle(algorithm(kn.Krum(2)), each([0, 1, 2, 3, 4], [1, 2, 3, 4, 5]), NAMES)


def test_a_group_of_which_all_were_refused_is_not_a_group() -> None:
    rows = Rows(np.arange(3), np.float32([0, 1, 1]), {}, np.array([[False], [True], [True]]), ("w",))
    partial = Partial({"w": np.array([0, 4 << 30, 6 << 30])}, np.array([0, 1, 1]), rows)
    assert settle(algorithm(kn.Bucketed(1)), partial, NAMES)["w"] == 5


@pytest.mark.parametrize(
    ("rule", "clients", "says"),
    [
        (kn.Krum(2), 6, r"Krum\(byzantine=2\) needs at least 7 updates, but has 6.*byzantine=1 at most"),
        (kn.Krum(0), 2, r"needs at least 3 updates, but has 2.*Median\(\)"),
        (kn.MultiKrum(2), 6, "needs at least 7 updates, but has 6"),
        (kn.MultiKrum(1, chosen=6), 6, "would choose 6 of 6 updates, of which 1 may be dishonest. Choose 5 at most"),
        (kn.Bulyan(1), 6, r"needs at least 7 updates, but has 6.*byzantine=0 at most"),
        (kn.TrimmedMean(0.1), 9, "needs at least 10 updates, but has 9.*trims nobody"),
        (kn.Bucketed(2, kn.Krum(1)), 9, r"makes 4 groups of 9 clients. Krum\(byzantine=1\) needs at least 5"),
        (kn.Bucketed(10), 9, "cannot make a group of 9 clients"),
        (kn.FLTrust("site-0"), 1, "needs at least 2 updates"),
        (kn.FLTrust("nobody"), 3, "names a client that there is not. The clients are 'site-0', 'site-1', 'site-2'"),
    ],
    ids=repr,
)
def test_too_few_clients_are_refused_before_a_round(rule: Any, clients: int, says: str) -> None:
    app = App(model=linear.LinearModel(), clients=linear.clients((4,) * clients), algorithm=algorithm(rule))
    with pytest.raises(CompositionError, match=says):
        resolve(app)
    enough = kn.replace(app.algorithm, aggregator=kn.Mean())
    resolve(replace(app, algorithm=enough))


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        (kn.Uniform(2), r"Uniform\(size=2\) draws 2 of 3"),
        (kn.Poisson(0.8), r"Poisson\(rate=0.8\) draws 2.4 of 3"),
    ],
)
def test_a_trusted_client_that_may_not_be_drawn_is_refused(sampler: Any, says: str) -> None:
    drawn = algorithm(kn.FLTrust("site-1"), sampler=sampler)
    app = App(model=linear.LinearModel(), clients=linear.clients((4, 4, 4)), algorithm=drawn)
    with pytest.raises(CompositionError, match=rf"'site-1' in every round, but {says}.*All\(\)"):
        resolve(app)


def test_a_small_draw_of_a_poisson_cohort_says_so() -> None:
    """The usual cohort would do, so only the draw can tell."""
    rule = algorithm(kn.Krum(1), sampler=kn.Poisson(0.5))
    with pytest.raises(CompositionError, match=r"Krum\(byzantine=1\) needs at least 5 updates, but has [1-4]\."):
        linear.train(rule, clients=linear.clients((3,) * 12), rounds=60)


def test_a_usual_draw_that_is_too_small_is_refused_before_a_round() -> None:
    rule = algorithm(kn.Krum(1), sampler=kn.Poisson(0.4))
    app = App(model=linear.LinearModel(), clients=linear.clients((3,) * 12), algorithm=rule)
    with pytest.raises(CompositionError, match=r"Krum\(byzantine=1\) needs at least 5 updates, but has 4\."):
        resolve(app)


@pytest.mark.parametrize(
    "made",
    [
        lambda: kn.TrimmedMean(0.5),
        lambda: kn.TrimmedMean(-0.1),
        lambda: kn.Krum(-1),
        lambda: kn.Krum(1.5),
        lambda: kn.MultiKrum(1, chosen=0),
        lambda: kn.Bulyan(-1),
        lambda: kn.GeometricMedian(smoothing=0.0),
        lambda: kn.NormBound(float("inf")),
        lambda: kn.Bucketed(0),
        lambda: kn.Bucketed(2, kn.Mean()),
        lambda: kn.Bucketed(2, kn.Bucketed(2)),
        lambda: kn.Bucketed(2, kn.FLTrust("a")),
    ],
)
def test_a_rule_that_cannot_be_is_refused(made: Any) -> None:
    with pytest.raises(ConfigurationError):
        made()


ROBUST = [
    kn.Median(),
    kn.TrimmedMean(0.15),
    kn.Krum(1),
    kn.MultiKrum(1),
    kn.Bulyan(1),
    kn.GeometricMedian(),
    kn.NormBound(0.5),
    kn.FLTrust("site-2"),
    kn.Bucketed(2),
]


def poisoned() -> dict[str, tuple[Any, Any]]:
    """Return eight clients of one rule; the last one's targets are wrong by a factor of -1000."""
    clients = {f"site-{i}": linear.clients((6 + i,))["site-0"] for i in range(8)}
    x, y = clients["site-7"]
    return {**clients, "site-7": (x, -1000 * y)}


def loss(run: kn.Run) -> float:
    x, y = poisoned()["site-0"]
    return float(np.mean((x @ run.params["w"] + run.params["b"] - y) ** 2))


@pytest.mark.parametrize("rule", ROBUST, ids=repr)
def test_a_liar_that_ruins_the_mean_does_not_ruin_the_rule(rule: Any) -> None:
    ruined = loss(linear.train(algorithm(kn.Mean()), rounds=5, clients=poisoned()))
    assert ruined > 1e3
    assert loss(linear.train(algorithm(rule), rounds=5, clients=poisoned())) < 1e-2 * ruined


@pytest.mark.parametrize("rule", [kn.Median(), kn.Bucketed(2), kn.GeometricMedian()], ids=repr)
def test_a_run_goes_on_after_a_stop_as_if_it_had_not_stopped(rule: Any, tmp_path: Any) -> None:
    whole = linear.train(algorithm(rule), rounds=4, clients=poisoned())
    for rounds in (2, 4):
        run = linear.train(algorithm(rule), rounds=rounds, clients=poisoned(), out=tmp_path / "run")
    assert run.digest == whole.digest


def test_everybody_alone_needs_no_robust_rule() -> None:
    runs = kn.alone(
        linear.LinearModel(), poisoned(), algorithm(kn.Krum(1)), stop=kn.Stop(rounds=2), holdout=0.0, engine="reference"
    )
    assert all(np.isfinite(tree.leaves(run.params)[0]) for run in runs.values())


def test_check_says_what_memory_the_rule_takes() -> None:
    from koinon.cli.commands import _facts

    def server_bytes(rule: Any) -> int:
        app = App(model=linear.LinearModel(), clients=linear.clients((4,) * 7), algorithm=algorithm(rule))
        return int(_facts(resolve(replace(app, engine="reference")))["server_bytes"])

    numbers = 4  # two weights, a bias and the count of batches; they are broadcast as float32
    assert server_bytes(kn.Mean()) == (8 + 4) * numbers
    assert server_bytes(kn.Median()) == (4 * 7 + 4) * numbers
    assert server_bytes(kn.Bucketed(3)) == (8 * 2 + 4) * numbers


@pytest.mark.parametrize("rule", [kn.Median(), kn.Bucketed(1)], ids=repr)
def test_a_round_that_draws_nobody_changes_nothing(rule: Any) -> None:
    run = linear.train(algorithm(rule, sampler=kn.Poisson(0.2)), rounds=12, clients=poisoned())
    assert 0 in [record.cohort for record in run.history]
    assert run.rounds == 12
