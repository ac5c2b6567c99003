"""The browser example with so many measurements that model and update take several pieces of 1 KiB."""

import numpy as np

import koinon as kn
from koinon.models.jax_logistic import logistic_regression

INPUTS = 600


def examples() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return made-up examples of two parties."""
    draw = np.random.default_rng(11)
    x = draw.normal(scale=0.1, size=(30, INPUTS)).astype(np.float32).round(2)
    y = (x[:, 0] > 0).astype(np.float32)
    return {"paris": (x[:10], y[:10]), "lyon": (x[10:], y[10:])}


app = kn.App(
    model=logistic_regression(INPUTS, (kn.Accuracy(),)),
    clients=examples,
    algorithm=kn.fedavg(kn.sgd(0.5), epochs=5, batch_size=None),
    stop=kn.Stop(rounds=5),
)
