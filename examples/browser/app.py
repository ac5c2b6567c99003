"""A run whose parties are web pages: participant.html holds the same model and numbers, in JavaScript.

koinon serve examples/browser/app.py --allow-origin https://where.the.page.is
"""

import numpy as np

import koinon as kn
from koinon.models.jax_logistic import logistic_regression


def examples() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return made-up examples of two parties, for ``koinon run``: in a deployment each page brings its own."""
    draw = np.random.default_rng(7)
    x = draw.normal(size=(60, 2)).astype(np.float32).round(2)
    y = (x @ [1.5, -1] + 0.3 * draw.normal(size=60) > 0).astype(np.float32)
    return {"paris": (x[:25], y[:25]), "lyon": (x[25:], y[25:])}


app = kn.App(
    model=logistic_regression(2, (kn.Accuracy(),)),
    clients=examples,
    algorithm=kn.fedavg(kn.sgd(0.5), epochs=5, batch_size=None),
    stop=kn.Stop(rounds=8),
)
