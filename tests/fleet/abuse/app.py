"""The app whose coordinator is abused: a linear model of three numbers, rounds that wait long, and a quorum of all."""

from dataclasses import replace

import koinon as kn
import linear
from koinon.core.algorithm import Synchronous

NAMES = ("lyon", "nice", "paris")


def examples(name):
    """Return the examples of one party."""
    return dict(zip(NAMES, linear.clients((6, 8, 12)).values(), strict=True))[str(name)]


patient = Synchronous(clients=2, quorum=1.0, shortest=600.0, longest=600.0)

app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    data=examples,
    algorithm=replace(kn.fedavg(kn.sgd(0.05), batch_size=4), schedule=patient),
    stop=kn.Stop(rounds=10_000),
)
