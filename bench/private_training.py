"""DP-SGD on clients beside plain SGD, a round each: ``python bench/private_training.py [--rounds N] --json``.

W1 of ``bench/simulation.py``: 784-128-10, 100 clients of 60 examples, batches of 10. ``shuffled`` takes the same batches as
plain SGD; ``poisson`` draws each example with probability 1/6, six times. Both clip every example's gradient and add noise
at every step. All take turns; the minimum counts.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from typing import Any

from simulation import Rounds, interleaved  # sets one thread before JAX starts
from workloads import RATE, perceptron

import koinon as kn
from koinon import tree
from koinon.core.types import Job
from koinon.round.client import initial_state
from koinon.runtimes.local import Local
from koinon.work.private_batches import at_once


class PrivateRounds(Rounds):
    """Rounds of clients that keep a state."""

    def __call__(self) -> None:
        job = self._program.next(self.state, 0.0)
        assert isinstance(job, Job)
        first = initial_state(self._plan.algorithm, job.broadcast)
        states = tree.map(lambda leaf: leaf[None].repeat(len(job.tasks), axis=0), first)
        self.state = self._program.absorb(self.state, self._runtime.round(self._plan, job, states))


def measure(rounds: int) -> dict[str, Any]:
    """Return seconds and ratios."""
    plain, runtime = perceptron(None), Local("jax")
    model = plain.model(plain.data)
    turns: dict[str, Any] = {}
    batches = {"plain": None, "shuffled": kn.ShuffledBatches(size=10), "poisson": kn.PoissonBatches(one_in=6)}
    for name, way in batches.items():
        algorithm = plain.algorithm
        if way is not None:
            algorithm = kn.replace(algorithm, work=kn.PrivateTraining(batches=way, optimizer=kn.sgd(RATE)))
        work = replace(plain, algorithm=algorithm, model=lambda _: model)
        turns[name] = (Rounds if way is None else PrivateRounds)(work, runtime)
        turns[name]()
        turns[name]()
    wall, busy = interleaved(turns, rounds)
    return {
        "seconds_per_round": wall,
        "ratio": {name: wall[name] / wall["plain"] for name in wall},
        "cpu_ratio": {name: busy[name] / busy["plain"] for name in busy},
        "examples_at_once": at_once(60, 6),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON")
    print(json.dumps(measure(max(3, parser.parse_args().rounds)), indent=2))


if __name__ == "__main__":
    main()
