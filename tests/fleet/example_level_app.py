"""The app of test_example_level_fleet: DP-SGD on each party's examples."""

import numpy as np

import koinon as kn
from koinon.models.jax_logistic import logistic_regression

NAMES = ("lyon", "nice", "paris")


def examples(name):
    """Return the examples of one party."""
    draw = np.random.default_rng(NAMES.index(str(name)))
    x = draw.normal(size=(40, 5)).astype(np.float32)
    return x, (x.sum(axis=1) > 0).astype(np.float32)


app = kn.App(
    model=logistic_regression(5),
    clients={name: examples(name) for name in NAMES},
    algorithm=kn.replace(
        kn.fedavg(),
        schedule=kn.Synchronous(clients=3),
        work=kn.PrivateTraining(multiplier=1.0, batches=kn.ShuffledBatches(size=8)),
    ),
    stop=kn.Stop(rounds=4),
    privacy=kn.PrivacyBudget(epsilon=100.0),
)
