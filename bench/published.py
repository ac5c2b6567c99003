"""Figures from the literature, reproduced: ``python bench/published.py heart|mnist [--seeds N] [--rounds N] [--data DIR]``.

``heart`` is FLamby's Fed-Heart-Disease (Ogier du Terrail et al., NeurIPS 2022): 4 hospitals, logistic
regression, batch 4, 100 local steps a round, 15 rounds. FLamby goes on with its batches where a round left them; here
every round shuffles anew. ``mnist`` is McMahan et al. 2017, table 1: the 2NN, 100 clients, a tenth of them a round,
batch 10, one epoch. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["NPROC"] = "1"

import jax
import jax.numpy as jnp
import numpy as np

import koinon as kn
from koinon.app import App, execute, resolve
from koinon.core.algorithm import Algorithm
from koinon.data.dataset import FederatedDataset
from koinon.data.heart import HOSPITALS, INPUTS, flamby, hospitals, standardised
from koinon.data.sources import images
from koinon.models.jax_logistic import logistic_regression
from koinon.report.progress import Silent

ADAPTIVE = {"beta_1": 0.9, "tau": 1e-8}


def heart(seeds: int) -> dict[str, Any]:
    """Return each strategy's accuracy: the mean over four clients, and on the pooled test rows."""
    model, data, runtime = logistic_regression(INPUTS), flamby(), kn.Local()
    pooled_data = pooled_statistics()
    strategies: dict[str, Algorithm] = {
        "fedavg": kn.fedavg(kn.sgd(0.001), steps=100, batch_size=4),
        "fedprox": kn.fedprox(0.01, kn.sgd(0.001), steps=100, batch_size=4),
        "scaffold": kn.scaffold(kn.sgd(0.001), steps=100, batch_size=4),
        "fedadam": kn.fedadam(
            kn.sgd(0.01), server_learning_rate=0.01, beta_2=0.999, steps=100, batch_size=4, **ADAPTIVE
        ),
        "fedyogi": kn.fedyogi(
            kn.sgd(0.003162), server_learning_rate=0.01, beta_2=0.999, steps=100, batch_size=4, **ADAPTIVE
        ),
        "fedadagrad": kn.fedadagrad(
            kn.sgd(0.003162), server_learning_rate=0.316228, steps=100, batch_size=4, **ADAPTIVE
        ),
    }
    table: dict[str, list[tuple[float, float]]] = {name: [] for name in ("pooled", *strategies)}
    for seed in range(seeds):
        central = App(
            model=model,
            clients=pooled_data.pooled(),
            algorithm=kn.fedavg(kn.adam(0.001, epsilon=1e-8), batch_size=4, epochs=50),
            stop=kn.Stop(rounds=1),
            seed=seed,
        )
        run = execute(resolve(central), listen=Silent(), runtime=runtime)
        table["pooled"].append(judged(run, data, pooled_data, runtime))
        for name, algorithm in strategies.items():
            app = App(model=model, clients=data, algorithm=algorithm, stop=kn.Stop(rounds=15), seed=seed)
            run = execute(resolve(app), listen=Silent(), runtime=runtime)
            table[name].append(judged(run, data, pooled_data, runtime))
    return {name: summary(np.array(rows)) for name, rows in table.items()}


def pooled_statistics() -> FederatedDataset:
    """Return FLamby's split with every row standardised by the training rows of all hospitals together."""
    every = hospitals()
    training = np.concatenate([h.x[~h.test] for h in every])
    x = np.concatenate([standardised(h.x, training) for h in every]).astype(np.float32)
    return kn.replace(flamby(), x=x)


def judged(run: kn.Run, data: FederatedDataset, pooled: FederatedDataset, runtime: kn.Local) -> tuple[float, float]:
    """Return the mean accuracy over the four clients' test rows, and that on the pooled test rows."""
    own = kn.evaluate(run, data, runtime=runtime)
    together = kn.evaluate(run, pooled.pooled(), runtime=runtime)["pooled"]
    return float(np.mean([own[name]["accuracy"] for name in HOSPITALS])), together["accuracy"]


def summary(rows: np.ndarray) -> dict[str, float]:
    """Return means and standard deviations over the seeds."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0, ddof=1)
    names = ("client_mean", "pooled_test")
    return {
        **{name: round(float(value), 4) for name, value in zip(names, mean, strict=True)},
        **{f"{name}_sd": round(float(value), 4) for name, value in zip(names, deviation, strict=True)},
    }


def mnist(folder: Path, rounds: int) -> dict[str, Any]:
    """Return how many rounds the 2NN needs to 97 % test accuracy, IID and with two shards a client."""
    (x, y), (x_test, y_test) = images(folder)
    test = x_test.reshape(-1, 784), y_test
    out: dict[str, Any] = {}
    for name, by, rate, limit in (
        ("iid", kn.IID(100), 0.1, 100),
        ("two_shards", kn.Shards(100, 2), 0.05, rounds),
    ):
        algorithm = kn.fedavg(kn.sgd(rate), batch_size=10, cohort=10)
        stop = kn.Stop(rounds=limit, target=("test_accuracy", 0.97))
        data = kn.partition(x.reshape(-1, 784), y, by, holdout=0.0)
        began = time.perf_counter()
        run = kn.fit(two_layers(), data, algorithm, test=test, stop=stop, progress=False)
        best = max(value for _, value in run.history.column("test_accuracy"))
        out[name] = {"rounds": run.rounds, "stopped": run.stopped, "best": best, "seconds": time.perf_counter() - began}
    out["ratio"] = out["two_shards"]["rounds"] / out["iid"]["rounds"]
    return out


def two_layers() -> kn.FunctionModel:
    """Return the 2NN: 784-200-200-10, rectified, Glorot-uniform."""
    sizes = (784, 200, 200, 10)

    def init(key: Any) -> dict[str, Any]:
        params = {}
        for i, (rows, columns) in enumerate(pairwise(sizes)):
            bound = (6 / (rows + columns)) ** 0.5
            weight = jax.random.uniform(jax.random.fold_in(key, i), (rows, columns), minval=-bound, maxval=bound)
            params[f"layer_{i}"] = {"weight": weight, "bias": jnp.zeros(columns)}
        return params

    def predict(params: dict[str, Any], x: Any) -> Any:
        for i in range(3):
            x = x @ params[f"layer_{i}"]["weight"] + params[f"layer_{i}"]["bias"]
            x = jax.nn.relu(x) if i < 2 else x
        return x

    def loss(params: dict[str, Any], x: Any, y: Any) -> Any:
        scores = jax.nn.log_softmax(predict(params, x))
        return -jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]

    return kn.FunctionModel(init, loss, predict, (kn.Accuracy(),))


def main() -> None:
    """Run one of the two and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("heart", "mnist"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1000, help="the longest non-IID run on MNIST")
    parser.add_argument("--data", type=Path, help="the folder of MNIST's four files")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON")
    chosen = parser.parse_args()
    began = time.perf_counter()
    if chosen.which == "mnist" and chosen.data is None:
        parser.error("mnist needs --data, the folder of MNIST's four files")
    result = heart(chosen.seeds) if chosen.which == "heart" else mnist(chosen.data, chosen.rounds)
    print(json.dumps({chosen.which: result, "seconds": round(time.perf_counter() - began, 1)}, indent=2))


if __name__ == "__main__":
    main()
