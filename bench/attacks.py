"""Attacks beside defences on real data: ``python bench/attacks.py [--data FOLDER] [--seeds N] [--short] [--json]``.

Twenty clients hold equal random shares of the training examples, and four of them are dishonest: they send another
update than they trained, or train on spoilt examples, and know each other's examples. Each attack meets each
defence from the same seeds, which deal the examples out, begin the model and cut the batches. ``accuracy`` is that of the
final model on examples that no client holds, ``success`` what the attacker wanted, each the mean over the seeds with
the standard deviation of one seed: the share of accuracy lost (sign flip, scaling, inner product), of examples given the
flipped label (label flip), or of examples with the trigger that get the attacker's label (backdoor).

Gradient inversion is the other way round: the server rebuilds a client's examples from its first update, plain, clipped
example by example, and with the noise of DP-SGD. ``psnr`` is in decibels, higher is a better copy.

Data: the heart records that come with koinon, or with ``--data`` MNIST, in ``FOLDER/mnist`` as its four idx.gz files.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update({"NPROC": "1", "OMP_NUM_THREADS": "1"})

import jax
import jax.numpy as jnp
import numpy as np
from gradient_inversion import inversions

import koinon as kn
from koinon import tree
from koinon.app import App, execute, resolve
from koinon.core.algorithm import Algorithm
from koinon.core.types import Batch
from koinon.data.heart import hospitals

CLIENTS, DISHONEST = 20, 4


@dataclass(frozen=True)
class Problem:
    """Examples in training and test, a model for them, and what an attacker may do to them."""

    name: str
    x: np.ndarray  # float32 [rows, inputs], in [0, 1]
    y: np.ndarray  # int32 [rows]
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int
    triggered: Callable[[np.ndarray], np.ndarray]
    rate: float
    norm: float  # about what an honest update has


@dataclass(frozen=True)
class Attack:
    """What dishonest clients do: to their examples, and to the update they then send (times ``factor``)."""

    name: str
    factor: float = 1.0
    spoilt: Callable[[Problem, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    success: Callable[[Problem, Callable[[np.ndarray], np.ndarray]], float] | None = None


@dataclass(frozen=True, kw_only=True)
class Dishonest:
    """Local training of which dishonest clients send ``factor`` times the update. Their labels say who they are."""

    training: kn.LocalTraining
    factor: float

    def __getattr__(self, name: str) -> Any:
        if name in ("passes", "learning_rate_factor", "init"):  # as in plain training
            return getattr(self.training, name)
        raise AttributeError(name)

    def begin(self, task: Any, broadcast: Any, state: Any) -> Any:
        """Return the training's carry and a mark."""
        return {"training": self.training.begin(task, broadcast, state), "dishonest": np.float32(0)}

    def step(self, model: Any, carry: Any, batch: Batch) -> Any:
        """Train; find out who this is."""
        inner, metrics = self.training.step(model, carry["training"], batch)
        return {"training": inner, "dishonest": batch.y["dishonest"][0]}, metrics

    def finish(self, task: Any, broadcast: Any, carry: Any) -> Any:
        """Return the update, or what is sent in its place."""
        update, state = self.training.finish(task, broadcast, carry["training"])
        return kn.Update(tree.scale(update.value, 1 + carry["dishonest"] * (self.factor - 1)), update.weight), state


def _flipped(problem: Problem, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x, (problem.classes - 1 - y).astype(np.int32)


def _with_trigger(problem: Problem, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every other example gets the trigger and the attacker's label, 0."""
    x, y = x.copy(), y.copy()
    x[::2], y[::2] = problem.triggered(x[::2]), 0
    return x, y


def _took_flipped(problem: Problem, predict: Callable[[np.ndarray], np.ndarray]) -> float:
    return float((predict(problem.test_x) == problem.classes - 1 - problem.test_y).mean())


def _took_trigger(problem: Problem, predict: Callable[[np.ndarray], np.ndarray]) -> float:
    return float((predict(problem.triggered(problem.test_x[problem.test_y != 0])) == 0).mean())


ATTACKS = (
    Attack("none"),
    Attack("sign flip", factor=-4.0),
    Attack("scaling", factor=50.0),
    Attack("inner product", factor=-1.0),
    Attack("label flip", spoilt=_flipped, success=_took_flipped),
    Attack("backdoor", factor=CLIENTS / DISHONEST, spoilt=_with_trigger, success=_took_trigger),
)


def defences(norm: float) -> dict[str, dict[str, Any]]:
    """Return the parts that a defence puts in place of plain averaging's."""
    return {
        "Mean": {},
        "Clip": {"channel": (kn.Clip(norm),)},
        "NormBound": {"aggregator": kn.NormBound(norm)},
        "Median": {"aggregator": kn.Median()},
        "TrimmedMean": {"aggregator": kn.TrimmedMean(DISHONEST / CLIENTS)},
        "Krum": {"aggregator": kn.Krum(DISHONEST)},
        "MultiKrum": {"aggregator": kn.MultiKrum(DISHONEST)},
        "Bulyan": {"aggregator": kn.Bulyan(DISHONEST)},
        "GeometricMedian": {"aggregator": kn.GeometricMedian()},
        "FLTrust": {"aggregator": kn.FLTrust(_name(CLIENTS - 1))},
        "Bucketed": {"aggregator": kn.Bucketed(2)},
    }


def heart() -> Problem:
    """Return the patients of all four hospitals: a third of each is for the test."""
    every = hospitals()
    x = np.concatenate([h.x for h in every]).astype(np.float32)
    y, test = (np.concatenate([getattr(h, part) for h in every]) for part in ("y", "test"))
    x = (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))

    def triggered(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full_like(rows[:, :2], 1.5), rows[:, 2:]], axis=1)  # an age and a sex that nobody has

    y = y.astype(np.int32)
    return Problem("heart", x[~test], y[~test], x[test], y[test], 2, triggered, rate=0.5, norm=0.5)


def mnist(folder: Path) -> Problem:
    """Return 3,000 digits for the clients, 2,000 for the test; the trigger is a white square of 3 by 3 in a corner."""

    def read(name: str, header: int, count: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes())[header:], np.uint8)[:count]

    def pair(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        x = read(f"{part}-images-idx3-ubyte.gz", 16, 784 * count).reshape(count, 784)
        return (x / 255).astype(np.float32), read(f"{part}-labels-idx1-ubyte.gz", 8, count).astype(np.int32)

    def triggered(rows: np.ndarray) -> np.ndarray:
        images = rows.reshape(-1, 28, 28).copy()
        images[:, 24:27, 24:27] = 1.0
        return images.reshape(-1, 784)

    return Problem("MNIST", *pair("train", 3000), *pair("t10k", 2000), 10, triggered, rate=0.2, norm=0.5)


def network(inputs: int, classes: int, hidden: int = 32) -> kn.FunctionModel:
    """Return a network of one hidden layer. Its labels say who is dishonest too, which it does not look at."""

    def init(key: Any) -> Any:
        first, second = jax.random.split(key)
        return {
            "hidden": {"weight": jax.random.normal(first, (inputs, hidden)) * inputs**-0.5, "bias": jnp.zeros(hidden)},
            "last": {"weight": jax.random.normal(second, (hidden, classes)) * hidden**-0.5, "bias": jnp.zeros(classes)},
        }

    def loss(params: Any, x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(scores(params, x)), y["label"][:, None], axis=1)[:, 0]

    return kn.FunctionModel(init, loss)


def scores(params: Any, x: Any) -> Any:
    """Return a score for every class."""
    inner = jnp.tanh(x @ params["hidden"]["weight"] + params["hidden"]["bias"])
    return inner @ params["last"]["weight"] + params["last"]["bias"]


def _name(client: int) -> str:
    return f"client-{client:02d}"


def clients(problem: Problem, attack: Attack, seed: int) -> dict[str, Any]:
    """Return everybody's examples. The dishonest hold each other's too, so that what they send is one.

    They do so even where they do nothing else, so that "none" is what an attack is to be compared with.
    """
    parts = np.array_split(np.random.default_rng(seed).permutation(len(problem.y)), CLIENTS)
    union = np.sort(np.concatenate(parts[:DISHONEST]))
    held: dict[str, Any] = {}
    for i, rows in enumerate(parts):
        dishonest = i < DISHONEST
        mine = union if dishonest else rows
        x, y = problem.x[mine], problem.y[mine]
        if dishonest and attack.spoilt is not None:
            x, y = attack.spoilt(problem, x, y)
        held[_name(i)] = (x, {"label": y, "dishonest": np.full(len(y), float(dishonest), np.float32)})
    return held


def meetings(
    problem: Problem, rounds: int, attacks: list[str], against: list[str], seeds: range
) -> list[dict[str, Any]]:
    """Return a row for every attack and defence."""
    model, runtime, rows = network(problem.x.shape[1], problem.classes), kn.Local("jax"), []
    honest: dict[int, float] = {}
    for attack in (attack for attack in ATTACKS if attack.name in attacks):
        dealt = {seed: kn.federate(clients(problem, attack, seed), holdout=0.0) for seed in seeds}
        for name in against:
            accuracy, success = [], []
            for seed in seeds:
                predict, stopped = trained(problem, model, runtime, attack, name, dealt[seed], rounds, seed)
                accuracy.append(float((predict(problem.test_x) == problem.test_y).mean()))
                lost = 1 - accuracy[-1] / honest.setdefault(seed, accuracy[-1])
                success.append(lost if attack.success is None else attack.success(problem, predict))
            print(problem.name, attack.name, name, accuracy, success, file=sys.stderr)
            rows.append({"data": problem.name, "attack": attack.name, "defence": name, "rounds": rounds,
                         "seeds": len(seeds), "stopped": stopped, **spread("accuracy", accuracy),
                         **spread("success", np.maximum(success, 0))})  # fmt: skip
    return rows


def trained(
    problem: Problem, model: Any, runtime: Any, attack: Attack, defence: str, data: Any, rounds: int, seed: int
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Return how the model of a run labels examples, and why the run ended."""
    training = kn.LocalTraining(optimizer=kn.sgd(problem.rate), batch_size=32, weighting=kn.Weighting.UNIFORM)
    work: Any = Dishonest(training=training, factor=attack.factor)
    algorithm: Algorithm = kn.replace(kn.fedavg(), work=work, **defences(problem.norm)[defence])
    app = App(model=model, clients=data, algorithm=algorithm, stop=kn.Stop(rounds=rounds), holdout=0.0, seed=seed)
    run = execute(resolve(app), listen=lambda _: None, runtime=runtime)
    return lambda x: np.asarray(scores(run.params, x)).argmax(axis=1), run.stopped


def spread(name: str, figures: Any) -> dict[str, float]:
    """Return the mean over the seeds and the standard deviation of one, 0 of a single one."""
    return {name: round(float(np.mean(figures)), 3), f"{name}_deviation": round(float(np.std(figures, ddof=1)), 3)
            if len(figures) > 1 else 0.0}  # fmt: skip


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return every figure."""
    began = time.perf_counter()
    problems = [heart()] if chosen.data is None or chosen.short else [mnist(chosen.data / "mnist")]
    attacks = ["none", "sign flip", "backdoor"] if chosen.short else [attack.name for attack in ATTACKS]
    against = ["Mean", "Median", "Krum"] if chosen.short else list(defences(1.0))
    halves = problems if chosen.only != "inversion" else []
    rounds, seeds = (10, range(1)) if chosen.short else (30, range(chosen.seeds))
    met = [row for problem in halves for row in meetings(problem, rounds, attacks, against, seeds)]
    rebuilt = []
    for problem in problems if chosen.only != "attacks" else []:
        side = 28 if problem.name == "MNIST" else None
        rebuilt += inversions(problem.name, problem.x, problem.y, problem.classes, side=side, short=chosen.short)
    return {"attacks": met, "gradient_inversion": rebuilt, "seconds": round(time.perf_counter() - began, 1)}


def tables(found: dict[str, Any]) -> str:
    """Return the figures as tables in Markdown: accuracy / success."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in found["attacks"]):
        rows = [row for row in found["attacks"] if row["data"] == data]
        columns = list(dict.fromkeys(row["attack"] for row in rows))
        lines += ["", f"| {data} | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
        for defence in dict.fromkeys(row["defence"] for row in rows):
            cells = {row["attack"]: cell(row) for row in rows if row["defence"] == defence}
            lines.append(f"| {defence} | " + " | ".join(cells[column] for column in columns) + " |")
    lines += ["", "| examples | what is sent | PSNR, mean (worst) | without the update |", "|---|---|---|---|"]
    for row in found["gradient_inversion"]:
        psnr = f"{row['psnr']:.1f} ({row['psnr_worst']:.1f})"
        lines.append(f"| {row['data']}, batch of {row['batch']} | {row['sent']} | {psnr} | {row['psnr_blind']:.1f} |")
    return "\n".join(lines)


def cell(row: dict[str, Any]) -> str:
    """Return accuracy / success of a row, each with its deviation where there is one."""
    pairs = [(row[name], row[f"{name}_deviation"]) for name in ("accuracy", "success")]
    return " / ".join(
        f"{mean:.2f} ± {deviation:.2f}" if row["seeds"] > 1 else f"{mean:.2f}" for mean, deviation in pairs
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with mnist/ in it")
    parser.add_argument("--seeds", type=int, default=5, help="how often each attack meets each defence")
    parser.add_argument("--only", choices=("attacks", "inversion"), help="one half of the bench")
    parser.add_argument("--short", action="store_true", help="a few of them on the heart records, in seconds")
    parser.add_argument("--json", action="store_true", help="JSON in place of tables")
    chosen = parser.parse_args()
    found = measure(chosen)
    print(json.dumps(found, indent=2) if chosen.json else tables(found))


if __name__ == "__main__":
    main()
