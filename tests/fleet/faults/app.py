"""The app of these tests: linear regression in numpy with ballast, so that an update can be large and a step slow.

``BALLAST`` is how many numbers are sent beside the regression's own, ``STEP_SECONDS`` how long a step sleeps,
``ALGORITHM`` which of the two.
"""

import os
import time
from dataclasses import dataclass, replace

import numpy as np

import koinon as kn
import linear

NAMES = ("lyon", "nice", "paris")
ALGORITHMS = {
    "fedavg": kn.fedavg(kn.sgd(0.05), epochs=2, batch_size=4),
    "scaffold": kn.scaffold(kn.sgd(0.05), epochs=2, batch_size=4),  # keeps state on the clients
}


@dataclass(frozen=True)
class Ballasted(linear.LinearModel):
    """The regression and numbers that move with its errors."""

    ballast: int = 8

    def init(self, key):
        """Return the first variables."""
        variables = super().init(key)
        return {**variables, "params": {**variables["params"], "ballast": np.zeros(self.ballast, np.float32)}}

    def grad(self, variables, batch):
        """Return slopes, state and sums, after the pause."""
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
        slopes, state, sums = super().grad(variables, batch)
        moved = np.linspace(-1, 1, self.ballast, dtype=np.float32) * slopes["b"] + variables["params"]["ballast"]
        return {**slopes, "ballast": moved}, state, sums


def examples(name):
    """Return the examples of one party."""
    return dict(zip(NAMES, linear.clients((6, 8, 12)).values(), strict=True))[str(name)]


app = kn.App(
    model=Ballasted(ballast=int(os.environ.get("BALLAST", "8"))),
    clients={name: examples(name) for name in NAMES},
    algorithm=replace(
        ALGORITHMS[os.environ.get("ALGORITHM", "fedavg")],
        schedule=kn.Synchronous(clients=3, quorum=1.0, shortest=60.0),
    ),
    stop=kn.Stop(rounds=6),
)
