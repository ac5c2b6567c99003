"""How fast robust rules are: ``python bench/robust.py [--clients N] [--parameters P] [--repeats R]``.

Every rule runs on one thread over updates in memory, beside the fastest of some plain numpy formulations of the same
aggregate in the same run, in turn. A formulation is rejected if its answer is another one. Seconds are the least of the repeats,
of the process's CPU time: waiting for a core that others use is left out. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

import numpy as np

import koinon as kn

SHARE = 0.1
BYZANTINE = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    updates = np.random.default_rng(0).standard_normal((chosen.clients, chosen.parameters), dtype=np.float32)
    weights = np.ones(chosen.clients, np.int64)
    rules = {rule: compared(kn_rule, ways, updates, weights, chosen.repeats) for rule, kn_rule, ways in against_numpy()}
    for rule in (
        kn.MultiKrum(BYZANTINE),
        kn.Bulyan(BYZANTINE),
        kn.GeometricMedian(),
        kn.NormBound(100.0),
        kn.FLTrust("a"),
    ):
        seconds = timed(lambda rule=rule: rule.finish({"w": updates}, weights), 1)
        rules[type(rule).__name__] = {"seconds": seconds}
    rules |= {f"Krum, {who}": beside_float32(alike, chosen.repeats) for who, alike in nearly_alike(updates)}
    facts = {"clients": chosen.clients, "parameters": chosen.parameters, "numpy": np.__version__}
    print(json.dumps({**facts, "rules": rules, "load": os.getloadavg()[0]}, indent=2))


def against_numpy() -> list[tuple[str, Any, dict[str, Callable[[np.ndarray], np.ndarray]]]]:
    """Return rules with plain formulations ``[clients, parameters] -> [parameters]`` of each."""
    return [
        (
            "Median",
            kn.Median(),
            {
                "np.median": lambda x: np.median(x, axis=0),
                "np.sort": lambda x: middle(np.sort(x, axis=0)),
                "np.partition": lambda x: middle(np.partition(x, ((len(x) - 1) // 2, len(x) // 2), axis=0)),
                "transposed, np.sort": lambda x: middle(np.sort(np.ascontiguousarray(x.T), axis=1).T),
            },
        ),
        (
            "TrimmedMean",
            kn.TrimmedMean(SHARE),
            {
                "np.sort": lambda x: trimmed(np.sort(x, axis=0)),
                "np.partition": lambda x: trimmed(np.partition(x, (cut(x), len(x) - 1 - cut(x)), axis=0)),
                "transposed, np.sort": lambda x: trimmed(np.sort(np.ascontiguousarray(x.T), axis=1).T),
            },
        ),
        (
            "Krum",
            kn.Krum(BYZANTINE),
            {
                "Gram, float32": lambda x: krum(x @ x.T, x),
                "Gram, float64": lambda x: krum(np.matmul(x, x.T, dtype=np.float64), x),
            },
        ),
    ]


def nearly_alike(updates: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield updates so near each other that products in float32 do not tell well how near; they are changed in place."""
    updates[1] = updates[0]
    yield "two clients alike", updates
    updates *= np.float32(0.01)
    updates += 100 * updates[0]
    yield "all near each other", updates


def beside_float32(updates: np.ndarray, repeats: int) -> dict[str, Any]:
    """Return the seconds of Krum and of the fastest formulation, which need not be right here, and their ratio."""
    weights, seconds, plain = np.ones(len(updates), np.int64), float("inf"), float("inf")
    for _ in range(repeats):
        seconds = min(seconds, timed(lambda: kn.Krum(BYZANTINE).finish({"w": updates}, weights), 1))
        plain = min(plain, timed(lambda: krum(updates @ updates.T, updates), 1))
    return {"seconds": seconds, "numpy": {"Gram, float32": plain}, "ratio": seconds / plain}


def compared(
    rule: Any, ways: dict[str, Callable[..., Any]], updates: np.ndarray, weights: np.ndarray, repeats: int
) -> dict[str, Any]:
    """Return the seconds of a rule and of every formulation, and the ratio to the fastest."""
    own, best = rule.finish({"w": updates}, weights)["w"], {}
    seconds = float("inf")
    for name, way in ways.items():
        np.testing.assert_allclose(
            way(updates[:, :1000]), rule.finish({"w": updates[:, :1000]}, weights)["w"], atol=1e-5
        )
        best[name] = timed(lambda way=way: way(updates), 1)
    fastest = min(best, key=lambda name: best[name])
    for _ in range(repeats):
        seconds = min(seconds, timed(lambda: rule.finish({"w": updates}, weights), 1))
        best[fastest] = min(best[fastest], timed(lambda: ways[fastest](updates), 1))
    np.testing.assert_allclose(ways[fastest](updates), own, atol=1e-5)
    return {"seconds": seconds, "numpy": best, "fastest": fastest, "ratio": seconds / best[fastest]}


def timed(run: Callable[[], Any], repeats: int) -> float:
    """Return the least CPU seconds."""
    least = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        run()
        least = min(least, time.process_time() - began)
    return least


def middle(x: np.ndarray) -> np.ndarray:
    """Return the median of what is sorted along the first axis, or partitioned about its middle."""
    return (x[(len(x) - 1) // 2] + x[len(x) // 2]) / 2


def cut(x: np.ndarray) -> int:
    """Return how many clients are trimmed at each end."""
    return int(SHARE * len(x))


def trimmed(x: np.ndarray) -> np.ndarray:
    """Return the trimmed mean of what is sorted or partitioned along the first axis."""
    return x[cut(x) : len(x) - cut(x)].mean(axis=0)


def krum(gram: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return Krum's choice from the Gram matrix."""
    norms = np.diag(gram)
    return chosen(norms[:, None] + norms[None, :] - 2 * gram, x)


def chosen(distances: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the update with the least score."""
    np.fill_diagonal(distances, np.inf)
    return x[np.argmin(np.sort(distances, axis=1)[:, : len(x) - BYZANTINE - 2].sum(axis=1))]


if __name__ == "__main__":
    main()
