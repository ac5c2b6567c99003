"""fit, alone, pooled: what a user writes, and what a user gets wrong."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import apps
import koinon as kn
from koinon.app import party
from koinon.core.events import RoundFinished, RunFinished, RunStarted
from koinon.errors import (
    CompositionError,
    ConfigurationError,
    DataError,
    KoinonError,
    ModelError,
    UnsupportedError,
)

STOP = kn.Stop(rounds=3)


def fit(clients: object = None, **fields: object) -> kn.Run:
    model = fields.pop("model", None) or apps.model()
    return kn.fit(model, clients or apps.clients(), **{"stop": STOP, "progress": False, **fields})  # type: ignore[arg-type]


def test_two_lines_train_a_model() -> None:
    run = fit(stop=kn.Stop(rounds=40))
    assert run.rounds == 40
    assert run.metrics["accuracy"] > 0.7
    assert run.stopped == "rounds: all 40 are done"
    assert len(run.history) == 40
    assert set(run.params) == {"w", "v", "b"}
    assert len(run.digest) == 64
    assert sorted(run.clients) == sorted(apps.clients())


def test_frames_are_clients_too() -> None:
    frames = {name: pd.DataFrame(x, columns=list("abcde")).assign(label=y) for name, (x, y) in apps.clients().items()}
    assert fit(frames, label="label").digest == fit().digest


def test_one_array_set_and_a_partitioner() -> None:
    x, y = (np.concatenate(part) for part in zip(*apps.clients().values(), strict=True))
    assert len(fit(kn.partition(x, y, kn.IID(4))).clients) == 4


def test_events_arrive_in_order() -> None:
    events: list[object] = []
    fit(progress=events.append)
    assert [type(event) for event in events] == [RunStarted, *[RoundFinished] * 3, RunFinished]


def test_a_target_ends_the_run() -> None:
    run = fit(stop=kn.Stop(rounds=100, target=("accuracy", 0.7)))
    assert run.stopped.startswith("target: accuracy")
    assert run.rounds < 100


def test_convergence_ends_the_run() -> None:
    run = fit(stop=kn.Stop(rounds=500, patience=3, minimum_change=0.05))
    assert run.stopped.startswith("converged: loss has not improved by more than 0.05 for 3 rounds")


def test_wall_time_ends_the_run() -> None:
    assert fit(stop=kn.Stop(rounds=10_000, seconds=0.2)).stopped.startswith("time: 0.2 s")


def test_server_data_is_judged_beside_the_clients() -> None:
    x, y = apps.clients(1, seed=0)["client-0"]
    run = fit(test=(x, y))
    assert {"test_loss", "test_accuracy", "loss", "accuracy_worst", "accuracy_spread"} <= set(run.metrics)


def test_the_best_model_is_kept() -> None:
    run = fit(algorithm=kn.fedavg(kn.sgd(3.0), epochs=5), stop=kn.Stop(rounds=12))
    losses = dict(run.history.column("loss"))
    assert run.best_round == min(losses, key=lambda number: losses[number])


def test_baselines() -> None:
    alone = kn.alone(apps.model(), apps.clients(3), stop=STOP)
    pooled = kn.pooled(apps.model(), apps.clients(3), stop=STOP)
    assert sorted(alone) == ["client-0", "client-1", "client-2"]
    assert list(alone["client-1"].clients) == ["client-1"]
    assert list(pooled.clients) == ["pooled"]
    held_out = sum(run.clients[name]["examples"] for name, run in alone.items())
    assert pooled.clients["pooled"]["examples"] == held_out, "pooled is judged on the same rows"


def train(params, data, task):  # type: ignore[no-untyped-def]
    x, y = data
    assert isinstance(x, np.ndarray)
    w = params["w"]
    for _ in range(20):
        w = w - 0.1 * x.T @ (1 / (1 + np.exp(-(x @ w))) - y) / len(x)
    return {"w": w}, len(x), {"loss": 0.5}


def judge(params, data):  # type: ignore[no-untyped-def]
    x, y = data
    return {"loss": 0.1, "accuracy": float(((x @ params["w"] > 0) == (y > 0.5)).mean())}


def test_a_loop_of_ones_own() -> None:
    run = fit(model=kn.OwnLoop(params={"w": np.zeros(5)}, train=train, evaluate=judge))
    assert run.metrics["accuracy"] > 0.7
    assert run.metrics["train_loss"] == pytest.approx(0.5)
    again = fit(model=kn.OwnLoop(params=lambda: {"w": np.zeros(5)}, train=train, evaluate=judge), runtime="processes")
    assert again.digest == run.digest


def test_a_loop_that_cannot_judge_holds_nothing_out() -> None:
    run = fit(model=kn.OwnLoop(params={"w": np.zeros(5)}, train=train))
    assert run.metrics["train_examples" if "train_examples" in run.metrics else "train_loss"] is not None
    assert not run.clients
    data = kn.federate(apps.clients(), holdout=0.2)
    with pytest.raises(ModelError, match="Give it evaluate="):
        fit(data, model=kn.OwnLoop(params={"w": np.zeros(5)}, train=train))


def test_a_loop_fits_server_optimisers_but_not_client_corrections() -> None:
    loop = kn.OwnLoop(params={"w": np.zeros(5)}, train=train, evaluate=judge)
    assert fit(model=loop, algorithm=kn.fedadam()).rounds == 3
    with pytest.raises(CompositionError, match="write that change into train"):
        fit(model=loop, algorithm=kn.scaffold())


def nan_client() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    clients = apps.clients()
    clients["client-2"][0][3, 1] = np.nan
    return clients


def other_shape() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    clients = apps.clients()
    x, y = clients["client-4"]
    clients["client-4"] = (x[:, :3], y)
    return clients


def other_type() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    clients = apps.clients()
    x, y = clients["client-4"]
    clients["client-4"] = (x.astype(np.int32), y)
    return clients


def empty_client() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {**apps.clients(), "nobody": (np.zeros((0, 5), np.float32), np.zeros(0, np.float32))}


def no_clients() -> dict[str, object]:
    return {}


@pytest.mark.parametrize(
    ("clients", "says"),
    [
        (nan_client, "x of client 'client-2' holds a value that is not a finite number"),
        (other_shape, r"'client-4' has x float32\[3\], y float32\[\]"),
        (other_type, r"'client-4' has x int32\[5\]"),
        (empty_client, "'nobody' has no examples"),
        (no_clients, "without entries"),
        (lambda: [1, 2], "Clients were asked for as a dict"),
        (lambda: {"a": "text"}, "must be a pair"),
    ],
)
def test_bad_clients_are_named(clients: Callable[[], object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        fit(clients)


def test_a_cohort_larger_than_the_population() -> None:
    with pytest.raises(ConfigurationError, match="A cohort of 7 clients was asked for, but there are only 6"):
        fit(algorithm=kn.fedavg(cohort=7))


def diverging() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    clients = apps.clients()
    clients["client-3"] = (clients["client-3"][0] * np.float32(3e38), clients["client-3"][1])
    return clients


def linear(params, x, y):  # type: ignore[no-untyped-def]
    return (x @ params["w"].sum(1) - y) ** 2


def test_a_client_that_diverges_is_refused_by_name_and_the_run_goes_on() -> None:
    clients = apps.clients()
    clients["client-3"] = (clients["client-3"][0] * np.float32(1e12), clients["client-3"][1])
    run = fit(clients, model=kn.FunctionModel(apps.init, linear), algorithm=kn.fedavg(kn.sgd(0.01)))
    assert run.rounds == 3
    assert all(list(record.refused) == ["client-3"] for record in run.history)
    assert np.isfinite(run.params["w"]).all()


def test_all_clients_diverge_and_the_run_says_so() -> None:
    clients = {name: (x * np.float32(1e12), y) for name, (x, y) in apps.clients().items()}
    run = fit(clients, model=kn.FunctionModel(apps.init, linear), algorithm=kn.fedavg(kn.sgd(0.01)))
    assert run.rounds == 0
    assert run.stopped.startswith("diverged: All 6 clients of the round were refused ('client-0'")
    assert "Lower the learning rate" in run.stopped


def test_a_loss_that_is_already_a_mean_is_refused() -> None:
    with pytest.raises(ModelError, match="one loss per example"):
        fit(model=kn.FunctionModel(apps.init, lambda params, x, y: linear(params, x, y).mean()))


def test_an_unknown_kind_of_model() -> None:
    with pytest.raises(ModelError, match="A model was asked for; found int"):
        fit(model=5)


def test_a_torch_model_is_refused_for_now() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(UnsupportedError, match=r"bring its training loop: kn\.OwnLoop"):
        fit(model=torch.nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"engine": "warp"}, "There is no engine 'warp'. The engines are jax, reference"),
        ({"runtime": "cloud"}, "There is no runtime 'cloud'. The runtimes are local, processes"),
        ({"runtime": "local", "workers": 4}, "Use runtime='processes', workers=4"),
        ({"stop": kn.Stop(target=("acuracy", 0.9))}, "The target watches 'acuracy', but a round has only"),
        ({"holdout": 1.5}, r"holdout is a share in \[0, 1\)"),
    ],
)
def test_fields_that_do_not_exist(fields: dict[str, object], says: str) -> None:
    with pytest.raises(KoinonError, match=says):
        fit(**fields)


def test_a_budget_that_a_part_declares_ends_the_run() -> None:
    run = fit(algorithm=kn.fedavg(cohort=TwoRounds(3)))
    assert run.rounds == 2
    assert run.stopped == "budget: two rounds were bought"


class TwoRounds(kn.Uniform):
    """A sampler with a budget."""

    def exhausted(self, round: int) -> str | None:
        return "two rounds were bought" if round > 2 else None


def test_a_run_shows_itself() -> None:
    run = fit()
    assert repr(run).startswith("<Run of fedavg: 3 rounds, train_loss=")
    assert "<svg" in run._repr_html_()
    assert "<svg" in run.plot().svg


def test_a_run_is_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.numpy import load_file

    run = fit()
    saved = load_file(run.save(tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(saved["params.w"], run.params["w"])
    with pytest.raises(ConfigurationError, match=r"ends in \.safetensors"):
        run.save(tmp_path / "model.keras")


def test_a_run_kept_goes_on_and_ends_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    whole = fit(stop=kn.Stop(rounds=6), algorithm=apps.algorithm())
    fit(stop=kn.Stop(rounds=2), algorithm=apps.algorithm(), out=tmp_path / "run")
    rest = fit(stop=kn.Stop(rounds=6), algorithm=apps.algorithm(), out=tmp_path / "run")
    assert rest.digest == whole.digest
    assert [record.round for record in rest.history] == [1, 2, 3, 4, 5, 6]
    assert [record.figures for record in rest.history] == [record.figures for record in whole.history]


def test_scaffold_goes_on_with_the_states_of_those_who_took_part(tmp_path) -> None:  # type: ignore[no-untyped-def]
    algorithm = kn.scaffold(kn.sgd(0.1), cohort=2)
    whole = fit(stop=kn.Stop(rounds=6), algorithm=algorithm)
    for rounds in (1, 3, 6):
        run = fit(stop=kn.Stop(rounds=rounds), algorithm=algorithm, out=tmp_path / "run")
    assert run.digest == whole.digest


def test_a_party_has_what_lies_at_its_place_or_what_the_app_has_under_its_name() -> None:
    ones = (np.ones((5, 2), np.float32), np.ones(5, np.float32))
    app = kn.App(model=apps.model(), data=lambda place: ones if place == "s3://bucket//lyon" else None, holdout=0.2)
    own = party(app, "lyon", "s3://bucket//lyon")
    assert (own.names, len(own.rows), own.held_out.tolist()) == (("lyon",), 5, [1])
    named = kn.replace(app, clients={"lyon": "s3://bucket//lyon", "nice": ones})
    assert party(named, "lyon", None).fingerprint() == party(named, "lyon", "s3://bucket//lyon").fingerprint()
    assert len(party(named, "nice", None).rows) == 5
    whole = kn.replace(app, clients=kn.federate({"lyon": ones, "nice": ones}))
    assert party(whole, "nice", None).names == ("nice",)


def test_a_party_without_examples_is_told_what_there_is() -> None:
    app = kn.App(model=apps.model(), clients={"lyon": (np.ones((5, 2)), np.ones(5))})
    with pytest.raises(ConfigurationError, match="no client 'host7' of its own, but lyon: --name says"):
        party(app, "host7", None)
    with pytest.raises(ConfigurationError, match="no data= to load 'records.csv' with"):
        party(app, "lyon", "records.csv")
    with pytest.raises(ConfigurationError, match="Say where the data is: --data PATH"):
        party(kn.replace(app, clients=None), "lyon", None)
