"""The app of test_robust_fleet: linear regression under the rule that the environment's ``RULE`` names, five sites.

A site with ``BROKEN`` in its environment reads inputs so large that its update is none, until it is started without.
"""

import os
from dataclasses import replace

import numpy as np

import koinon as kn
import linear

NAMES = ("lyon", "nice", "paris", "metz", "brest")
RULES = {"FLTrust": kn.FLTrust("metz"), "Krum": kn.Krum(1), "Bucketed": kn.Bucketed(2), "Mean": kn.Mean()}


def examples(name):
    """Return the examples of one party."""
    x, y = dict(zip(NAMES, linear.clients((6, 8, 12, 9, 7)).values(), strict=True))[str(name)]
    return (x * np.float32(1e30), y) if os.environ.get("BROKEN") else (x, y)


app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    data=examples,
    algorithm=replace(
        kn.fedavg(kn.sgd(0.05), epochs=2, batch_size=4),
        aggregator=RULES[os.environ.get("RULE", "Krum")],
        sampler=kn.Poisson(0.5) if os.environ.get("COINS") else kn.All(),
        schedule=kn.Synchronous(clients=len(NAMES), quorum=0.5, shortest=1.0, longest=60.0, retries=0),
    ),
    stop=kn.Stop(rounds=5),
    holdout=0.0,
    engine="reference",
)
