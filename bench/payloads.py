"""What a codec costs in accuracy and saves in bytes: ``python bench/payloads.py [--seeds N] [--rounds N]``.

The four hospitals of the demo train together, once without a codec and once with each, from the same weights on the
same batches: a logistic regression as in the demo (14 numbers) and a perceptron of 64 units (961 numbers). Every seed
holds out another third of each hospital's patients. ``bytes`` are the payload's own arrays of one client and round,
as an engine sends them; ``error`` is the length of what the codec changed in it over the length of the update, in the
first round. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

os.environ["NPROC"] = "1"

import jax
import jax.numpy as jnp
import numpy as np

import koinon as kn
from koinon import tree
from koinon.app import App, Resolved, execute, resolve
from koinon.core.execution import Engine, Runtime
from koinon.core.protocols import Transform
from koinon.core.types import Job
from koinon.data.heart import INPUTS, heart
from koinon.engines.catalogue import engine
from koinon.models.jax_logistic import logistic_regression
from koinon.report.progress import Silent
from koinon.round.client import decode, initial_state

UNITS = 64
CODECS: dict[str, tuple[Transform, ...]] = {
    "none": (),
    "Bfloat16()": (kn.Bfloat16(),),
    "Quantise()": (kn.Quantise(),),
    "Quantise(block=64)": (kn.Quantise(block=64),),
    "Quantise(bits=4)": (kn.Quantise(bits=4),),
    "Quantise(bits=4, block=64)": (kn.Quantise(bits=4, block=64),),
    "Quantise(bits=2)": (kn.Quantise(bits=2),),
}


def perceptron() -> kn.FunctionModel:
    """Return one hidden layer of rectified units and one logit."""

    def init(key: Any) -> dict[str, Any]:
        first, second = jax.random.split(key)
        return {
            "hidden": {"weight": jax.random.normal(first, (INPUTS, UNITS)) * INPUTS**-0.5, "bias": jnp.zeros(UNITS)},
            "out": {"weight": jax.random.normal(second, (UNITS,)) * UNITS**-0.5, "bias": jnp.zeros(())},
        }

    def predict(params: dict[str, Any], x: Any) -> Any:
        hidden = jax.nn.relu(x @ params["hidden"]["weight"] + params["hidden"]["bias"])
        return hidden @ params["out"]["weight"] + params["out"]["bias"]

    def loss(params: dict[str, Any], x: Any, y: Any) -> Any:
        logit = predict(params, x)
        return jnp.logaddexp(0.0, logit) - y * logit

    return kn.FunctionModel(init, loss, predict, (kn.Accuracy(), kn.AreaUnderCurve()))


def sent(resolved: Resolved, computes: Engine) -> tuple[int, list[tuple[float, float]]]:
    """Return the bytes of a client's payload, and each client's squared error and squared length in round 1."""
    plan, program = resolved.plan, resolved.program()
    state = program.init(tree.to_numpy(plan.model.init(program.initial_key())))
    job = program.next(state, 0.0)
    assert isinstance(job, Job)
    bare = kn.replace(plan, algorithm=kn.replace(plan.algorithm, channel=()))
    size, squares = 0, []
    for place in range(len(job.tasks)):
        one = job.chunk(np.array([place]))
        payloads = []
        for each in (plan, bare):
            first = tree.map(lambda x: np.asarray(x)[None], initial_state(each.algorithm, job.broadcast))
            payloads.append(computes.send(each, one, first)[0].value)
        size = tree.size_bytes(payloads[0])
        value = decode(plan.algorithm, payloads[0], one.tasks.keys[0], np.float32(job.cohort))
        gap = tree.subtract(tree.to_numpy(value), payloads[1])
        squares.append((float(tree.sum_of_squares(gap)), float(tree.sum_of_squares(payloads[1]))))
    return size, squares


def measure(
    model: Any, channel: tuple[Transform, ...], chosen: argparse.Namespace, computes: Engine, runtime: Runtime
) -> dict[str, Any]:
    """Return one row of the table: means over the seeds, and standard deviations ``_sd``."""
    algorithm = kn.fedavg(kn.sgd(0.1), batch_size=16, channel=channel)
    figures, squares, size = [], [], 0
    for seed in range(chosen.seeds):
        data = heart(seed=seed)
        app = App(model=model, clients=data, algorithm=algorithm, stop=kn.Stop(rounds=chosen.rounds), seed=seed)
        resolved = resolve(app)
        size, found = sent(resolved, computes)
        squares += found
        run = execute(resolved, listen=Silent(), runtime=runtime)
        everyone = kn.evaluate(run, data.pooled(), runtime=runtime)["pooled"]
        figures.append([everyone[name] for name in ("accuracy", "auc", "loss")])
    mean, spread = np.mean(figures, axis=0), np.std(figures, axis=0, ddof=1)
    row: dict[str, Any] = {"bytes": size, "error": float(np.mean([(gap / whole) ** 0.5 for gap, whole in squares]))}
    for name, value, deviation in zip(("accuracy", "auc", "loss"), mean, spread, strict=True):
        row |= {name: round(float(value), 4), f"{name}_sd": round(float(deviation), 4)}
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="at least 2")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON")
    chosen = parser.parse_args()
    chosen.seeds = max(2, chosen.seeds)
    computes, runtime = engine("jax"), kn.Local("jax")
    out: dict[str, Any] = {"seeds": chosen.seeds, "rounds": chosen.rounds}
    for name, model in (("logistic regression", logistic_regression(INPUTS)), ("perceptron", perceptron())):
        out[name] = {codec: measure(model, channel, chosen, computes, runtime) for codec, channel in CODECS.items()}
    runtime.close()
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
