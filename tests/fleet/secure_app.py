"""The app of test_fleet_secure_sum: linear regression of five parties under masks, four of whom are enough."""

import os
from dataclasses import replace

import koinon as kn
import linear

NAMES = ("lyon", "metz", "nice", "paris", "tours")


def examples(name):
    """Return the examples of one party."""
    return dict(zip(NAMES, linear.clients((6, 8, 12, 7, 9)).values(), strict=True))[str(name)]


longest = float(os.environ.get("LONGEST", "60"))
app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    algorithm=replace(
        kn.fedavg(kn.sgd(0.05), batch_size=4, channel=(kn.Clip(1.0), kn.SecureSum())),
        schedule=kn.Synchronous(
            clients=int(os.environ.get("HERE", "5")), quorum=0.5, shortest=longest, longest=longest
        ),
    ),
    stop=kn.Stop(rounds=int(os.environ.get("ROUNDS", "6"))),
    evaluation=kn.Evaluation(every=3),
    engine="reference",
)
