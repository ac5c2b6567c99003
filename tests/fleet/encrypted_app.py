"""The app of test_fleet_encrypted_sum: linear regression of four parties whose sums a key holder decrypts."""

import os
from dataclasses import replace

import koinon as kn
import linear

NAMES = ("lyon", "metz", "nice", "paris")


def examples(name):
    """Return the examples of one party."""
    return dict(zip(NAMES, linear.clients((6, 8, 12, 7)).values(), strict=True))[str(name)]


holders = tuple(os.environ["HOLDER"].split())
noise = (kn.GaussianNoise(multiplier=1.0),) if "NOISE" in os.environ else ()
longest = float(os.environ.get("LONGEST", "60"))
app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    algorithm=replace(
        kn.fedavg(
            kn.sgd(0.05),
            batch_size=4,
            channel=(kn.Clip(1.0), kn.Encrypted(key=holders if len(holders) > 1 else holders[0], figures=8), *noise),
            cohort=kn.Poisson(0.4) if "COINS" in os.environ else None,
        ),
        schedule=kn.Synchronous(
            clients=int(os.environ.get("HERE", "4")), quorum=0.5, shortest=longest, longest=longest
        ),
    ),
    stop=kn.Stop(rounds=int(os.environ.get("ROUNDS", "4"))),
    evaluation=kn.Evaluation(every=3),
    engine="reference",
    privacy_test_mode=bool(noise),
)
