"""How fast updates are added up exactly: ``python bench/aggregation.py [--clients N] [--parameters P]``.

Every update is checked, converted to fixed point and added, one after the other, on one thread; a plain float32
``total += weight * update`` in numpy runs beside it. GB/s are bytes of client data, in the fastest tenth of the
updates; those per CPU second leave out the waiting for a core that others use. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

os.environ.update({"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})

import numpy as np

from koinon import exact, tree
from koinon.aggregate.exact_jax import ExactSum
from koinon.data.dataset import aligned
from koinon.round.settle import absorb

WEIGHT = 60


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    chosen = parser.parse_args()
    updates = [update(chosen.parameters, seed) for seed in range(3)]  # in turn: each has left the cache when it returns
    size = tree.size_bytes(updates[0])
    ways: dict[str, Callable[[int], object]] = {"jax": with_jax(updates), "numpy": with_numpy(updates)}
    ways["float32 numpy"] = plainly(updates)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for part in np.array_split(np.arange(chosen.clients), 10):
        for name, way in ways.items():
            began, used = time.perf_counter(), time.process_time()
            for i in part:
                way(int(i))
            wall[name].append((time.perf_counter() - began) / len(part))
            busy[name].append((time.process_time() - used) / len(part))
    speed = {name: size / min(each) / 1e9 for name, each in wall.items()}
    print(
        json.dumps(
            {
                "clients": chosen.clients,
                "parameters": chosen.parameters,
                "gigabytes_per_second": speed,
                "gigabytes_per_cpu_second": {name: size / min(each) / 1e9 for name, each in busy.items()},
                "ratio_to_float32": {name: speed[name] / speed["float32 numpy"] for name in ("jax", "numpy")},
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "update_mb": size / 2**20,
                "load": os.getloadavg()[0],
            },
            indent=2,
        )
    )


def update(parameters: int, seed: int) -> dict[str, np.ndarray]:
    """Return an update of four leaves."""
    draw = np.random.default_rng(seed)
    out = {}
    for i in range(4):
        out[f"layer_{i}"] = aligned((parameters // 4,), np.float32)
        draw.standard_normal(dtype=np.float32, out=out[f"layer_{i}"])
        out[f"layer_{i}"] *= np.float32(1e-3)
    return out


def with_jax(updates: list[dict[str, np.ndarray]]) -> Callable[[int], object]:
    """Return the compiled way, warmed up."""
    total = ExactSum(updates[0], 100)
    total.absorb(updates[0], WEIGHT)
    return lambda i: (total.absorb(updates[i % 3], WEIGHT), _wait(total))


def with_numpy(updates: list[dict[str, np.ndarray]]) -> Callable[[int], object]:
    """Return the way without JAX."""
    total = exact.zero(updates[0])
    return lambda i: absorb(total, updates[i % 3], WEIGHT, 100)


def plainly(updates: list[dict[str, np.ndarray]]) -> Callable[[int], object]:
    """Return the inexact sum in float32."""
    total = tree.zeros(updates[0])

    def add(i: int) -> None:
        for name, leaf in updates[i % 3].items():
            total[name] += np.float32(WEIGHT) * leaf

    return add


def _wait(total: ExactSum) -> None:
    import jax

    jax.block_until_ready(total._total)


if __name__ == "__main__":
    main()
