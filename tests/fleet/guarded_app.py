"""The app of test_guarded: linear regression under what the environment's ``GUARD`` names."""

import os
from dataclasses import replace

import koinon as kn
import linear

NAMES = ("lyon", "nice", "paris")
NOISY = (kn.Clip(1.0), kn.GaussianNoise(multiplier=0.5))
GUARDS = {
    "median": {},
    "noise": {"channel": NOISY},
    "adaptive": {"channel": (kn.AdaptiveClip(kn.QuantileNorm(initial=1.0)), kn.GaussianNoise(multiplier=0.5))},
    "local": {"channel": (kn.Clip(1.0), kn.LocalGaussian(epsilon=20.0))},
    "coins": {"channel": NOISY, "cohort": kn.Poisson(0.5)},
}


def examples(name):
    """Return the examples of one party."""
    return dict(zip(NAMES, linear.clients((6, 8, 12)).values(), strict=True))[str(name)]


guard = os.environ.get("GUARD", "median")
app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    algorithm=replace(
        kn.fedavg(kn.sgd(0.05), epochs=2, batch_size=4, **GUARDS[guard]),
        aggregator=kn.Median() if guard == "median" else kn.Mean(),
        schedule=kn.Synchronous(clients=3, quorum=1.0, shortest=60.0),
    ),
    stop=kn.Stop(rounds=8),
    privacy=kn.PrivacyBudget(epsilon=500.0) if guard != "median" else None,
    engine="reference",
    privacy_test_mode=os.environ.get("SECRET") is None,
)
