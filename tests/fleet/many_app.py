"""The app of test_many_secure_parties: linear regression of a hundred parties under masks."""

import os
from dataclasses import replace

import koinon as kn
import linear

PARTIES = 100
NAMES = tuple(f"party-{i:03}" for i in range(PARTIES))


def examples(name):
    """Return the examples of one party."""
    return dict(zip(NAMES, linear.clients(tuple(4 + i % 5 for i in range(PARTIES))).values(), strict=True))[str(name)]


app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    algorithm=replace(
        kn.fedavg(kn.sgd(0.05), batch_size=4, channel=(kn.Clip(1.0), kn.SecureSum(largest_weight=16))),
        schedule=kn.Synchronous(clients=int(os.environ.get("HERE", str(PARTIES))), quorum=0.5, shortest=10, longest=60),
    ),
    stop=kn.Stop(rounds=3),
    holdout=0.0,
    engine="reference",
)
