"""Each algorithm is its paper's: formulas by hand, special cases, and the same from both engines."""

import inspect
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import apps
import koinon as kn
from koinon import tree
from koinon.core.types import RoundFacts
from koinon.errors import CompositionError, ConfigurationError
from koinon.server.adaptive import SecondMoment
from koinon.server.controlled import Controlled

FACTORIES = (kn.fedavg, kn.fedsgd, kn.fedprox, kn.fedadagrad, kn.fedadam, kn.fedyogi, kn.scaffold)
LOCAL = {"epochs": 2, "batch_size": 8}
ALGORITHMS: dict[str, Callable[..., kn.Algorithm]] = {
    "fedavg": lambda **more: kn.fedavg(kn.sgd(0.2), server_momentum=0.5, **LOCAL, **more),
    "fedavg_adam": lambda **more: kn.fedavg(kn.adam(0.05), schedule=kn.Exponential(0.5), **LOCAL, **more),
    "fedsgd": lambda **more: kn.fedsgd(0.5, batch_size=7, **more),
    "fedprox": lambda **more: kn.fedprox(0.3, kn.momentum(0.1), **LOCAL, **more),
    "fedadagrad": lambda **more: kn.fedadagrad(kn.sgd(0.2), **LOCAL, **more),
    "fedadam": lambda **more: kn.fedadam(kn.sgd(0.2), **LOCAL, **more),
    "fedyogi": lambda **more: kn.fedyogi(kn.sgd(0.2), **LOCAL, **more),
    "scaffold": lambda **more: kn.scaffold(kn.sgd(0.2), **LOCAL, **more),
}
START = np.concatenate([np.ravel(leaf) for leaf in tree.leaves(apps.init(None))])
FACTS = RoundFacts(round=1, cohort=2, population=5)


def trained(algorithm: kn.Algorithm, *, rounds: int = 2, engine: str = "reference", **more) -> np.ndarray:
    """Return the parameters after some rounds as one vector."""
    run = kn.fit(
        apps.model(),
        apps.clients(4, 12),
        algorithm,
        stop=kn.Stop(rounds=rounds),
        engine=engine,
        holdout=0.0,
        progress=False,
        **more,
    )
    return np.concatenate([np.ravel(leaf) for leaf in tree.leaves(run.params)])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_both_engines_compute_the_same(name: str) -> None:
    algorithm = ALGORITHMS[name](cohort=3)
    plain, compiled = trained(algorithm), trained(algorithm, engine="jax")
    np.testing.assert_allclose(compiled, plain, atol=1e-5)
    assert np.abs(plain - START).max() > 1e-3


@pytest.mark.parametrize("engine", ["reference", "jax"])
def test_no_pull_is_fedavg(engine: str) -> None:
    pulled, free = kn.fedprox(0.0, kn.sgd(0.2), **LOCAL), kn.fedavg(kn.sgd(0.2), **LOCAL)
    np.testing.assert_array_equal(trained(pulled, engine=engine), trained(free, engine=engine))


def test_a_strong_pull_stays_near_the_global_model() -> None:
    near, far = (np.abs(trained(kn.fedprox(mu, kn.sgd(0.2), **LOCAL), rounds=1) - START).sum() for mu in (4.0, 0.01))
    assert near < 0.8 * far


@pytest.mark.parametrize("engine", ["reference", "jax"])
def test_scaffold_begins_as_fedavg(engine: str) -> None:
    """All control variates are zero in the first round."""
    controlled, free = kn.scaffold(kn.sgd(0.2), **LOCAL), kn.fedavg(kn.sgd(0.2), **LOCAL)
    first = [trained(algorithm, rounds=1, engine=engine) for algorithm in (controlled, free)]
    np.testing.assert_array_equal(*first)


def test_scaffold_goes_on_otherwise() -> None:
    controlled, free = kn.scaffold(kn.sgd(0.2), **LOCAL), kn.fedavg(kn.sgd(0.2), **LOCAL)
    assert np.abs(trained(controlled, rounds=2) - trained(free, rounds=2)).max() > 1e-4


def test_fedsgd_is_fedavg_with_one_step_on_all_examples() -> None:
    one_step = kn.fedavg(kn.sgd(0.5), batch_size=None)
    np.testing.assert_allclose(trained(kn.fedsgd(0.5)), trained(one_step), atol=1e-6)


def test_the_pieces_of_a_full_gradient_do_not_show() -> None:
    np.testing.assert_allclose(trained(kn.fedsgd(0.5, batch_size=5)), trained(kn.fedsgd(0.5)), atol=1e-6)


def squares(x: list[list[float]], y: list[float]) -> kn.FunctionModel:
    """Return linear regression from zero on rows like these."""
    return kn.FunctionModel(lambda _: {"w": jnp.zeros(len(x[0]))}, lambda p, x, y: 0.5 * (x @ p["w"] - y) ** 2)


def test_scaffold_is_algorithm_1_with_option_ii_weighted_by_examples() -> None:
    """Written out for two clients of 1 and 3 examples, both in every round, K = 2 full steps, three rounds."""
    draw = np.random.default_rng(0)
    clients = {name: (draw.normal(size=(n, 2)), draw.normal(size=n)) for name, n in (("a", 1), ("b", 3))}
    rate, steps, server_rate = 0.1, 2, 0.7
    x, c = np.zeros(2), np.zeros(2)
    own = {name: np.zeros(2) for name in clients}
    for _ in range(3):
        dx, dc = np.zeros(2), np.zeros(2)
        for name, (a, b) in clients.items():
            y = x.copy()
            for _ in range(steps):
                y -= rate * (a.T @ (a @ y - b) / len(b) - own[name] + c)
            new = own[name] - c + (x - y) / (steps * rate)
            dx += len(b) / 4 * (y - x)
            dc += len(b) / 4 * (new - own[name])
            own[name] = new
        x, c = x + server_rate * dx, c + dc
    algorithm = kn.scaffold(kn.sgd(rate), steps=steps, batch_size=None, server_learning_rate=server_rate)
    for engine in ("reference", "jax"):
        run = kn.fit(
            squares(*next(iter(clients.values()))), clients, algorithm, stop=kn.Stop(rounds=3), engine=engine,
            holdout=0.0, progress=False,
        )  # fmt: skip
        np.testing.assert_allclose(run.params["w"], x, atol=1e-6)
        np.testing.assert_allclose(run.outcome.state.server["control"]["w"], c, atol=1e-5)


def test_the_control_variate_of_the_server_moves_by_the_share_that_took_part() -> None:
    server = Controlled(learning_rate=0.5)
    state = server.init({"params": {"w": np.float32([1.0])}, "state": {}})
    change = {"params": {"w": np.array([2.0])}, "state": {}, "control": {"w": np.array([10.0])}}
    after = server.apply(state, change, FACTS)
    assert after["params"]["w"].tolist() == [2.0]
    assert after["control"]["w"].tolist() == [4.0]  # 2 of 5 clients
    assert after["control"]["w"].dtype == np.float32


@pytest.mark.parametrize("engine", ["reference", "jax"])
def test_scaffold_outlives_its_learning_rate(engine: str) -> None:
    algorithm = kn.scaffold(kn.sgd(0.2), schedule=kn.Cosine(1), **LOCAL)
    once, thrice = (trained(algorithm, rounds=rounds, engine=engine) for rounds in (1, 3))
    np.testing.assert_array_equal(thrice, once)


def test_scaffold_takes_the_channel() -> None:
    channel = (kn.Clip(5.0), kn.Quantise())
    through, free = (ALGORITHMS["scaffold"](channel=steps) for steps in (channel, ()))
    exact = trained(free)
    np.testing.assert_allclose(trained(through), exact, atol=0.1 * np.abs(exact).max())


@pytest.mark.parametrize("make", [kn.fedavg, kn.fedsgd, kn.scaffold])
def test_a_schedule_of_rounds_is_not_one_of_learning_rates(make: Callable[..., kn.Algorithm]) -> None:
    with pytest.raises(ConfigurationError, match=r"Synchronous\(.*kn.replace\(algorithm, schedule=kn.Synchronous"):
        make(schedule=kn.Synchronous(clients=5))


values = st.lists(st.floats(-3, 3), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", SecondMoment)
@given(updates=values)
def test_the_adaptive_servers_are_algorithm_2(kind: SecondMoment, updates: list[float]) -> None:
    rate, beta_1, beta_2, tau = 0.1, 0.9, 0.99, 1e-3
    server = kn.Adaptive(second_moment=kind, learning_rate=rate, beta_1=beta_1, beta_2=beta_2, tau=tau)
    state = server.init({"params": {"w": np.zeros(1)}, "state": {}})
    x, m, v = 0.0, 0.0, tau**2
    for d in updates:
        m = beta_1 * m + (1 - beta_1) * d
        if kind is SecondMoment.ADAGRAD:
            v += d**2
        elif kind is SecondMoment.ADAM:
            v = beta_2 * v + (1 - beta_2) * d**2
        elif v > d**2:
            v -= (1 - beta_2) * d**2
        elif v < d**2:
            v += (1 - beta_2) * d**2
        x += rate * m / (v**0.5 + tau)
        state = server.apply(state, {"params": {"w": np.array([d])}, "state": {}}, FACTS)
    np.testing.assert_allclose(state["params"]["w"], [x], rtol=1e-9, atol=1e-12)


def test_the_first_adaptive_step_by_hand() -> None:
    start = {"params": {"w": np.float32([1.0])}, "state": {}}
    update = {"params": {"w": np.array([0.5])}, "state": {}}
    expected = {  # m = 0.1 * 0.5 for Adam and Yogi; v0 = 0.01; tau = 0.1
        SecondMoment.ADAGRAD: 1 + 0.2 * 0.05 / ((0.01 + 0.25) ** 0.5 + 0.1),
        SecondMoment.ADAM: 1 + 0.2 * 0.05 / ((0.9 * 0.01 + 0.1 * 0.25) ** 0.5 + 0.1),
        SecondMoment.YOGI: 1 + 0.2 * 0.05 / ((0.01 + 0.1 * 0.25) ** 0.5 + 0.1),
    }
    for kind, wanted in expected.items():
        server = kn.Adaptive(second_moment=kind, learning_rate=0.2, beta_1=0.9, beta_2=0.9, tau=0.1)
        moved = server.apply(server.init(start), update, FACTS)["params"]["w"]
        assert moved.dtype == np.float32
        assert moved == pytest.approx([wanted])


def test_momentum_of_the_server_by_hand() -> None:
    server = kn.Average(learning_rate=0.5, momentum=0.5)
    state = server.init({"params": {"w": np.zeros(1)}, "state": {"mean": np.zeros(1)}})
    for _ in range(2):
        state = server.apply(state, {"params": {"w": np.ones(1)}, "state": {"mean": np.ones(1)}}, FACTS)
    assert state["params"]["w"].tolist() == [0.5 * 1 + 0.5 * 1.5]
    assert state["state"]["mean"].tolist() == [2.0]  # statistics take the mean change as it is


def test_every_factory_speaks_the_same_words() -> None:
    shared = {"batch_size", "schedule", "cohort", "channel"}
    trained_locally = shared | {"step", "epochs", "steps"}
    for factory in FACTORIES:
        words = set(inspect.signature(factory).parameters)
        assert words >= (shared if factory is kn.fedsgd else trained_locally), factory.__name__
        algorithm = factory(cohort=7, channel=(kn.Clip(2.0),))
        assert algorithm.name == factory.__name__
        assert algorithm.sampler == kn.Uniform(7)
        assert algorithm.channel == (kn.Clip(2.0),)
        assert factory().sampler == kn.All()
        assert factory(cohort=kn.Poisson(0.5)).sampler == kn.Poisson(0.5)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: kn.fedavg(0.1), r"optimizer must be one of koinon's, such as sgd\(0.1\); found 0.1"),  # type: ignore[arg-type]
    (lambda: kn.fedavg(kn.sgd), r"must be one of koinon's"),  # type: ignore[arg-type]
    (lambda: kn.fedavg(cohort=0.1), r"cohort is a number of clients, a sampler, or None for all; found 0.1"),  # type: ignore[arg-type]
    (lambda: kn.fedavg(cohort=0), r"Uniform.size must be a whole number from 1; found 0"),
    (lambda: kn.fedavg(channel=kn.Clip(1.0)), r"Write channel=\(Clip\(norm=1.0\),\)"),  # type: ignore[arg-type]
    (lambda: kn.fedavg(epochs=0), r"LocalTraining.epochs must be a whole number from 1; found 0"),
    (lambda: kn.fedavg(epochs=None), r"LocalTraining.epochs .* found None"),  # type: ignore[arg-type]
    (lambda: kn.fedavg(steps=1.5), r"LocalTraining.steps .* found 1.5"),  # type: ignore[arg-type]
    (lambda: kn.fedsgd(batch_size=0), r"FullGradient.batch_size must be a whole number from 1"),
    (lambda: kn.fedsgd(0.0), r"Average.learning_rate must be a number above 0; found 0.0"),
    (lambda: kn.fedavg(server_momentum=1.0), r"Average.momentum must be a number in \[0, 1\); found 1.0"),
    (lambda: kn.fedprox(-0.1), r"Proximal.mu must be a number from 0; found -0.1"),
    (lambda: kn.fedadam(tau=0.0), r"Adaptive.tau must be a number above 0"),
    (lambda: kn.fedyogi(beta_2=1.0), r"Adaptive.beta_2 must be a number in \[0, 1\)"),
    (lambda: kn.fedadagrad(server_learning_rate=float("nan")), r"Adaptive.learning_rate .* found nan"),
    (lambda: kn.scaffold(steps=0), r"ControlledTraining.steps must be a whole number from 1"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_a_wrong_field_is_refused_when_it_is_written(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()


def test_scaffold_needs_plain_steps() -> None:
    with pytest.raises(CompositionError, match=r"plain steps; found Momentum.* Use sgd"):
        kn.scaffold(kn.momentum(0.1))
