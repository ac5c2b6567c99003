"""Same seed, same bits under aggregators that read more than one sum."""

import os
import subprocess
import sys

import pytest

import apps
import koinon as kn

RULES = [kn.Bucketed(2, kn.TrimmedMean(0.4)), kn.GeometricMedian(), kn.FLTrust("client-1")]


def digest(rule, engine: str, runtime: str, workers: int | None) -> str:
    algorithm = kn.replace(apps.algorithm(), aggregator=rule, sampler=kn.All())
    return kn.fit(
        apps.model(),
        apps.clients(),
        algorithm,
        stop=kn.Stop(rounds=3),
        engine=engine,
        runtime=runtime,
        workers=workers,
        progress=False,
    ).digest


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("engine", ["jax", "reference"])
def test_every_runtime_and_number_of_workers_gives_one_digest(rule, engine: str) -> None:
    assert digest(rule, engine, "processes", 3) == digest(rule, engine, "local", None)


THREADS = """
import numpy as np, koinon as kn
from koinon import tree
rows = np.random.default_rng(0).standard_normal((30, 50_000), dtype=np.float32)
rules = (kn.GeometricMedian(), kn.Krum(3), kn.MultiKrum(3), kn.Bulyan(3), kn.NormBound(9.0), kn.FLTrust("a"), kn.Median())
print(*(tree.digest(rule.finish({"w": rows}, np.ones(30))) for rule in rules))
"""


def test_the_threads_of_the_linear_algebra_do_not_reach_the_aggregate() -> None:
    found = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": threads}
        out = subprocess.run(
            [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert out.returncode == 0, out.stderr
        found.add(out.stdout)
    assert len(found) == 1
