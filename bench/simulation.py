"""One round of FedAvg beside a plain training loop: ``python bench/simulation.py W1|W2|W3|W4 [--workers N] ...``.

The plain loop knows no clients: the same layers, the same number of steps on the same batches, gathered from the
same resident arrays in shuffled order, one pass over the data set after the other. Both take turns; the minimum of all turns counts.
koinon's round is the whole one: sampling, shuffling, training, exact sums, refusal check, a row per client,
settling and the server's step. ``--ragged`` compares log-normal client sizes (5-600) with equal ones of as many
examples. ``--torch`` adds a plain loop in torch for W2. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from typing import Any

os.environ.update({"NPROC": "1", "OMP_NUM_THREADS": "1", "KERAS_BACKEND": "jax"})

import jax
import jax.numpy as jnp
import numpy as np
import workloads

from koinon import tree
from koinon.core.execution import Plan, Runtime
from koinon.core.protocols import Model
from koinon.core.types import Batch, Job
from koinon.round.client import initial_state
from koinon.round.stopping import Stop
from koinon.round.training import Evaluation, FederatedTraining, State
from koinon.runtimes.local import Local
from koinon.runtimes.processes import Processes


class Rounds:
    """koinon's rounds, one after the other, each on its own cohort."""

    def __init__(self, work: workloads.Workload, runtime: Runtime) -> None:
        self.model = work.model(work.data)
        self._plan = Plan(work.algorithm, self.model, work.data)
        self._program = FederatedTraining(self._plan, Stop(rounds=10**9), Evaluation(every=10**9), 0)
        self._runtime = runtime
        self.state: State = self._program.init(runtime.initial(self._plan, self._program.initial_key()))

    def __call__(self) -> None:
        job = self._program.next(self.state, 0.0)
        assert isinstance(job, Job)
        states = initial_state(self._plan.algorithm, job.broadcast)
        self.state = self._program.absorb(self.state, self._runtime.round(self._plan, job, states))

    @property
    def digest(self) -> str:
        return tree.digest(self.state.server["params"])


class Plain:
    """The loop without federated learning."""

    def __init__(self, work: workloads.Workload, model: Model) -> None:
        self._model, self._work = model, work
        passes = work.algorithm.work.passes()
        assert passes.batch_size is not None
        self._batch = passes.batch_size
        largest = work.algorithm.sampler.largest(len(work.data))
        self._count = self._examples(largest)
        self._order = np.empty(0, np.int32)
        self._x, self._y = jax.device_put(work.data.x), jax.device_put(work.data.y)
        self._draw = np.random.default_rng(0)
        self._variables = jax.device_put(model.init(np.zeros(2, np.uint32)))
        self._loop = jax.jit(self._all)
        self._step = jax.jit(self._one)

    def __call__(self) -> None:
        rows = self._shuffled().reshape(-1, self._batch)
        if self._work.stepwise:
            variables = self._variables
            for row in rows:
                variables = self._step(variables, row, self._x, self._y)
        else:
            variables = self._loop(self._variables, rows, self._x, self._y)
        self._variables = jax.block_until_ready(variables)

    def _shuffled(self) -> np.ndarray:
        """Return the next examples of the data set, which is shuffled anew whenever it has been gone through."""
        while len(self._order) < self._count:
            fresh = self._draw.permutation(len(tree.leaves(self._work.data.y)[0])).astype(np.int32)
            self._order = np.concatenate([self._order, fresh])
        taken, self._order = self._order[: self._count], self._order[self._count :]
        return taken

    def _examples(self, cohort: int) -> int:
        counts = np.diff(self._work.data.offsets)
        return int(np.ceil(counts.mean() / self._batch)) * self._batch * cohort

    def _all(self, variables: Any, rows: Any, x: Any, y: Any) -> Any:
        return jax.lax.fori_loop(0, rows.shape[0], lambda i, v: self._one(v, rows[i], x, y), variables)

    def _one(self, variables: Any, row: Any, x: Any, y: Any) -> Any:
        batch = Batch(x[row], y[row], jnp.ones(self._batch, jnp.float32), jnp.zeros(2, jnp.uint32))
        gradients, state, _ = self._model.grad(variables, batch)
        params = tree.map(lambda w, g: w - workloads.RATE * g, variables["params"], gradients)
        return {"params": params, "state": state}


def torch_loop(work: workloads.Workload) -> Callable[[], None]:
    """Return W2 as a plain loop in torch, one thread."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64 * 14 * 14, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    x = torch.from_numpy(work.data.x).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(work.data.y).long()
    optimizer = torch.optim.SGD(net.parameters(), workloads.RATE, foreach=True)
    criterion = nn.CrossEntropyLoss()

    def run() -> None:
        for row in torch.randperm(len(y)).split(10):
            optimizer.zero_grad(set_to_none=True)
            criterion(net(x[row]), y[row]).backward()
            optimizer.step()

    return run


def timed(turn: Callable[[], None]) -> float:
    """Return the seconds of one turn."""
    began = time.perf_counter()
    turn()
    return time.perf_counter() - began


def interleaved(turns: dict[str, Callable[[], None]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return every turn's minimum in wall seconds and in this process's CPU seconds.

    They take turns, so a busy moment of the machine meets all of them. CPU seconds leave out the waiting for a
    core that others use, but count what two threads do at once twice, and nothing of other processes.
    """
    wall: dict[str, list[float]] = {name: [] for name in turns}
    busy: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            began = time.process_time()
            wall[name].append(timed(turn))
            busy[name].append(time.process_time() - began)
    return {name: min(each) for name, each in wall.items()}, {name: min(each) for name, each in busy.items()}


def memory(who: int = resource.RUSAGE_SELF) -> float:
    """Return the largest resident size so far, in MB: of this process, or of any one that it has seen off."""
    return resource.getrusage(who).ru_maxrss / 1024


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one workload."""
    work = workloads.workload(chosen.workload, chosen.clients)
    single = Local(chosen.engine)
    runtime: Runtime = Processes(chosen.workers, chosen.engine) if chosen.workers > 1 else single
    began = time.perf_counter()
    rounds = Rounds(work, runtime)
    first = timed(rounds) + 0.0
    start = time.perf_counter() - began - first
    rounds()
    peak = memory()
    turns: dict[str, Callable[[], None]] = {"koinon": rounds, "plain": Plain(work, rounds.model)}
    if chosen.workers > 1:
        turns["one worker"] = Rounds(work, single)
    if chosen.torch:
        turns["torch"] = torch_loop(work)
    for turn in turns.values():
        turn()
    best, busy = interleaved(turns, chosen.rounds)
    digest = rounds.digest
    runtime.close()
    if chosen.workers > 1:
        peak += chosen.workers * memory(resource.RUSAGE_CHILDREN)
    out = {
        "workload": chosen.workload,
        "seconds_per_round": best["koinon"],
        "no_fl_seconds_per_round": best["plain"],
        "ratio": best["koinon"] / best["plain"],
        "cpu_ratio": busy["koinon"] / busy["plain"] if chosen.workers == 1 else None,
        "workers": chosen.workers,
        "engine": chosen.engine,
        "first_round_seconds": first,
        "start_seconds": start,
        "peak_mb": round(peak, 1),
        "data_mb": round((tree.size_bytes(work.data.x) + tree.size_bytes(work.data.y)) / 2**20, 1),
        "digest": digest,
        "load": os.getloadavg()[0],
    }
    if chosen.workers > 1:
        out["faster_than_one_worker"] = best["one worker"] / best["koinon"]
    if chosen.torch:
        out["torch_seconds_per_round"] = best["torch"]
        out["ratio_to_torch"] = best["koinon"] / best["torch"]
    return out


def measure_ragged(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return ragged against even clients, and how often the program was compiled after the first round."""
    runtime = Local(chosen.engine)
    ragged, even = Rounds(workloads.ragged(even=False), runtime), Rounds(workloads.ragged(even=True), runtime)
    first = timed(ragged)
    even()
    counts: list[int] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: counts.append(1) if event.endswith("backend_compile_duration") else None
    )
    for turn in (ragged, even):
        turn()
    spent = {"ragged": [0.0, 0], "even": [0.0, 0]}
    for _ in range(chosen.rounds):
        for name, turn in (("ragged", ragged), ("even", even)):
            spent[name][0] += timed(turn)
            spent[name][1] += int(turn.state.rows.metrics["examples"].sum())
    each = {name: seconds / examples for name, (seconds, examples) in spent.items()}
    return {
        "workload": "ragged",
        "seconds_per_example": each["ragged"],
        "even_seconds_per_example": each["even"],
        "ratio": each["ragged"] / each["even"],
        "examples": {name: examples for name, (_, examples) in spent.items()},
        "first_round_seconds": first,
        "compilations_after_round_1": len(counts),
        "engine": chosen.engine,
        "digest": ragged.digest,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=("W1", "W2", "W3", "W4", "ragged"))
    parser.add_argument("--engine", default="jax")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15, help="turns each, at least 5")
    parser.add_argument("--clients", type=int, help="registered clients, instead of the workload's own number")
    parser.add_argument("--torch", action="store_true", help="beside a plain torch loop (W2)")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON")
    chosen = parser.parse_args()
    chosen.rounds = max(5, chosen.rounds)
    print(json.dumps(measure_ragged(chosen) if chosen.workload == "ragged" else measure(chosen), indent=2))


if __name__ == "__main__":
    main()
