"""The app of test_fleet_distributed_noise: five parties that add noise of the environment's MULTIPLIER under their masks."""

import os
from dataclasses import replace

import koinon as kn
import linear

NAMES = ("lyon", "metz", "nice", "paris", "tours")


def examples(name):
    """Return the examples of one party."""
    return dict(zip(NAMES, linear.clients((6, 8, 12, 7, 9)).values(), strict=True))[str(name)]


longest = float(os.environ.get("LONGEST", "60"))
noise = kn.DistributedNoise(multiplier=float(os.environ.get("MULTIPLIER", "1.1")))
app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    algorithm=replace(
        kn.fedavg(kn.sgd(0.05), batch_size=4, channel=(kn.Clip(1.0), noise, kn.SecureSum())),
        schedule=kn.Synchronous(
            clients=int(os.environ.get("HERE", "5")), quorum=0.5, shortest=longest, longest=longest
        ),
    ),
    stop=kn.Stop(rounds=int(os.environ.get("ROUNDS", "4"))),
    evaluation=kn.Evaluation(every=2),
    privacy=kn.PrivacyBudget(epsilon=float(os.environ.get("EPSILON", "1e9"))),
    engine="reference",
)
