"""Same seed, same bits: every runtime, any number of workers, whatever the user's process has done before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import apps
import koinon as kn
from koinon.runtimes.environment import settings

HERE = Path(__file__).parent.parent

STOP = kn.Stop(rounds=3)


def digest(engine: str, runtime: str, workers: int | None) -> str:
    return kn.fit(
        apps.model(),
        apps.clients(),
        apps.algorithm(),
        stop=STOP,
        engine=engine,
        runtime=runtime,
        workers=workers,
        progress=False,
    ).digest


@pytest.mark.parametrize("engine", ["jax", pytest.param("reference", marks=pytest.mark.slow)])
def test_every_runtime_and_number_of_workers_gives_one_digest(engine: str) -> None:
    digests = {digest(engine, "local", None), *(digest(engine, "processes", workers) for workers in (1, 2, 3))}
    assert len(digests) == 1


SCRIPT = """
import jax, jax.numpy as jnp
jax.jit(lambda a: a @ a)(jnp.ones((700, 700))).block_until_ready()  # JAX has started, with all threads
import apps, koinon as kn
model, before = apps.model(), jax.config.values.copy()
run = kn.fit(model, apps.clients(), apps.algorithm(), stop=kn.Stop(rounds=3), progress=False)
assert jax.config.values == before, "koinon changed the user's settings"
print(run.digest)
"""


def test_a_process_that_used_jax_first_gets_the_same_bits() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in settings({})}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert out.stdout.strip() == digest("jax", "local", None)


def test_another_seed_is_another_model() -> None:
    def seeded(seed: int) -> str:
        return kn.fit(apps.model(), apps.clients(), apps.algorithm(), stop=STOP, seed=seed, progress=False).digest

    assert seeded(1) == seeded(1) != seeded(2)


TYPED_IN = """
import jax.numpy as jnp, numpy as np, koinon as kn
draw = np.random.default_rng(0)
clients = {name: (draw.normal(size=(20, 3)), draw.normal(size=20)) for name in "abc"}
def init(key): return {"w": jnp.zeros(3)}
def loss(params, x, y): return (x @ params["w"] - y) ** 2
run = kn.fit(kn.FunctionModel(init, loss), clients, stop=kn.Stop(rounds=2), runtime="processes", workers=2, progress=False)
print(run.rounds)
"""


def test_functions_typed_into_a_prompt_or_a_notebook_reach_the_workers() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(
        [sys.executable, "-"], input=TYPED_IN, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "2"
