"""Each algorithm against its paper's equations, written down once more in float64, and its special cases.

Every client takes all its examples as one batch, so that no shuffling is in the way.
"""

from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon import tree

RATE, EPOCHS, ROUNDS = 0.3, 3, 4
FULL: dict[str, Any] = {"epochs": EPOCHS, "batch_size": None}
X0 = np.array([0.5, -1.0, 0.0])  # weights and bias of linear.LinearModel

CLIENTS = [(np.hstack([x, np.ones((len(x), 1))]).astype(float), y.astype(float)) for x, y in linear.clients().values()]
SIZES = np.array([len(x) for x, _ in CLIENTS], float)
SHARES = SIZES / SIZES.sum()


def gradient(k: int, w):
    """Return the gradient of client k's mean of half the squared error."""
    x, y = CLIENTS[k]
    return x.T @ (x @ w - y) / len(y)


def local(k: int, w, pull=0.0, drift=0.0):
    """Return a client's model after its epochs of one step each, pulled back to ``w`` and corrected by ``drift``."""
    y = w
    for _ in range(EPOCHS):
        y = y - RATE * (gradient(k, y) + pull * (y - w) + drift)
    return y


def mean_update(w, pull=0.0):
    return sum(share * (local(k, w, pull) - w) for k, share in enumerate(SHARES))


def fedavg():
    w = X0
    for _ in range(ROUNDS):
        w = w + mean_update(w)
    return w


def fedavg_with_momentum():
    w, m = X0, 0
    for _ in range(ROUNDS):
        m = 0.5 * m + mean_update(w)
        w = w + 0.8 * m
    return w


def fedsgd():
    w = X0
    for _ in range(ROUNDS):
        w = w - RATE * sum(share * gradient(k, w) for k, share in enumerate(SHARES))
    return w


def fedprox():
    w = X0
    for _ in range(ROUNDS):
        w = w + mean_update(w, pull=0.7)
    return w


def adaptive(second_moment, beta_1: float):
    w, m, v, tau = X0, np.zeros(3), np.full(3, 0.01**2), 0.01
    for _ in range(ROUNDS):
        d = mean_update(w)
        m, v = beta_1 * m + (1 - beta_1) * d, second_moment(v, d * d)
        w = w + 0.1 * m / (np.sqrt(v) + tau)
    return w


def scaffold():
    w, c, own = X0, np.zeros(3), np.zeros((3, 3))
    for _ in range(ROUNDS):
        models = [local(k, w, drift=c - own[k]) for k in range(3)]
        new = np.stack([own[k] - c + (w - models[k]) / (EPOCHS * RATE) for k in range(3)])
        w = w + sum(share * (model - w) for share, model in zip(SHARES, models, strict=True))
        c, own = c + SHARES @ (new - own), new
    return w


SERVER: dict[str, Any] = {"server_learning_rate": 0.1, "tau": 0.01}
PAPERS = [
    (kn.fedavg(kn.sgd(RATE), **FULL), fedavg),
    (kn.fedavg(kn.sgd(RATE), server_momentum=0.5, server_learning_rate=0.8, **FULL), fedavg_with_momentum),
    (kn.fedsgd(RATE), fedsgd),
    (kn.fedsgd(RATE, batch_size=2), fedsgd),
    (kn.fedprox(0.7, kn.sgd(RATE), **FULL), fedprox),
    (kn.fedadagrad(kn.sgd(RATE), **SERVER, **FULL), lambda: adaptive(lambda v, s: v + s, 0.0)),
    (kn.fedadam(kn.sgd(RATE), **SERVER, **FULL), lambda: adaptive(lambda v, s: 0.99 * v + 0.01 * s, 0.9)),
    (kn.fedyogi(kn.sgd(RATE), **SERVER, **FULL), lambda: adaptive(lambda v, s: v - 0.01 * s * np.sign(v - s), 0.9)),
    (kn.scaffold(kn.sgd(RATE), **FULL), scaffold),
]


def flat(run: kn.Run):
    return np.array([*run.params["w"], run.params["b"]], float)


@pytest.mark.parametrize(("algorithm", "paper"), PAPERS, ids=lambda part: getattr(part, "name", ""))
def test_an_algorithm_is_its_papers(algorithm: kn.Algorithm, paper) -> None:
    expected = paper()
    assert np.abs(expected - X0).max() > 0.1, "something must be learnt for this to mean anything"
    np.testing.assert_allclose(flat(linear.train(algorithm, ROUNDS)), expected, rtol=2e-6, atol=2e-6)


def test_the_papers_differ() -> None:
    found = [
        paper() for algorithm, paper in PAPERS if (algorithm.name, algorithm.work) != ("fedsgd", PAPERS[3][0].work)
    ]
    assert len({tuple(w.round(4)) for w in found}) == len(found)


def test_scaffold_of_a_cohort_moves_its_variate_by_the_share_that_took_part() -> None:
    """Only the clients drawn change their variates; the server's moves by |S| / N of their mean."""
    run = linear.train(kn.scaffold(kn.sgd(RATE), cohort=2, **FULL), 1)
    state = run.outcome.state.server
    drawn = [int(name[-1]) for name in ("site-0", "site-1", "site-2") if _took_part(run, name)]
    new = {k: (X0 - local(k, X0)) / (EPOCHS * RATE) for k in drawn}
    mean = sum(SIZES[k] * new[k] for k in drawn) / SIZES[drawn].sum()
    np.testing.assert_allclose(np.array([*state["control"]["w"], state["control"]["b"]]), 2 / 3 * mean, rtol=1e-5)


def _took_part(run: kn.Run, name: str) -> bool:
    rows = run.history[0].rows
    assert rows is not None
    return run.plan.data.names.index(name) in rows.clients


def test_a_pull_of_zero_is_no_pull() -> None:
    assert (
        linear.train(kn.fedprox(0.0, kn.sgd(RATE), **FULL)).digest
        == linear.train(kn.fedavg(kn.sgd(RATE), **FULL)).digest
    )


def test_the_first_round_of_scaffold_is_fedavg() -> None:
    step = kn.sgd(RATE)
    first = [linear.train(algorithm, 1).params for algorithm in (kn.scaffold(step, **FULL), kn.fedavg(step, **FULL))]
    assert tree.digest(first[0]) == tree.digest(first[1])


def test_one_full_step_of_fedavg_is_fedsgd() -> None:
    one = linear.train(kn.fedavg(kn.sgd(RATE), epochs=1, batch_size=None))
    np.testing.assert_allclose(flat(one), flat(linear.train(kn.fedsgd(RATE))), rtol=1e-6)


def test_federation_of_one_client_is_training_on() -> None:
    """Rounds of one client are epochs: nothing is lost or added between them, but a rounding to fixed point."""
    only = {"all": linear.clients()["site-2"]}
    rounds = linear.train(kn.fedavg(kn.sgd(RATE), epochs=2, batch_size=None), 3, clients=only)
    epochs = linear.train(kn.fedavg(kn.sgd(RATE), epochs=6, batch_size=None), 1, clients=only)
    np.testing.assert_allclose(flat(rounds), flat(epochs), rtol=1e-6)
    assert rounds.variables["state"]["batches"] == epochs.variables["state"]["batches"] == 6


@pytest.mark.parametrize(
    "algorithm", [kn.fedavg(kn.sgd(RATE), **FULL), kn.scaffold(kn.sgd(RATE), **FULL)], ids=["fedavg", "scaffold"]
)
def test_equal_clients_are_one_client(algorithm: kn.Algorithm) -> None:
    x, y = linear.clients()["site-2"]
    three, one = (linear.train(algorithm, clients={f"c{i}": (x, y) for i in range(n)}) for n in (3, 1))
    np.testing.assert_allclose(flat(three), flat(one), rtol=1e-6)


def test_the_learning_rate_follows_its_schedule() -> None:
    decayed = linear.train(kn.fedavg(kn.sgd(RATE), schedule=kn.Exponential(0.5), **FULL), 1)
    assert decayed.digest == linear.train(kn.fedavg(kn.sgd(RATE), **FULL), 1).digest
    fading = linear.train(kn.fedavg(kn.sgd(RATE), schedule=kn.Exponential(1e-9), **FULL), 4)
    np.testing.assert_allclose(flat(fading), flat(decayed), atol=1e-6)
