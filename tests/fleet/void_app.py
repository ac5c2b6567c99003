"""The app of test_void_rounds: linear regression of six parties under masks. Of six, five must stay to open a sum."""

import os
from dataclasses import replace

import koinon as kn
import linear

NAMES = ("lyon", "metz", "nice", "paris", "rome", "tours")
SIZES = tuple(map(int, os.environ.get("SIZES", "6 8 12 7 9 10").split()))  # who has one example holds none out


def examples(name):
    """Return the examples of one party."""
    x, y = dict(zip(NAMES, linear.clients(SIZES).values(), strict=True))[str(name)]
    return (x * 1e30, y) if os.environ.get("SPOILT") == name else (x, y)


drawn = kn.Uniform(int(os.environ["DRAWN"])) if "DRAWN" in os.environ else kn.All()
if "COIN" in os.environ:
    drawn = kn.Poisson(float(os.environ["COIN"]))
seconds = float(os.environ.get("LONGEST", "4"))
app = kn.App(
    model=linear.LinearModel(),
    clients={name: examples(name) for name in NAMES},
    algorithm=replace(
        kn.fedavg(kn.sgd(0.05), batch_size=4, channel=(kn.Clip(1.0), kn.SecureSum())),
        sampler=drawn,
        schedule=kn.Synchronous(
            clients=int(os.environ.get("HERE", "4")),
            quorum=float(os.environ.get("QUORUM", "0.5")),
            shortest=seconds,
            longest=seconds,
            retries=0,
        ),
    ),
    stop=kn.Stop(rounds=int(os.environ.get("ROUNDS", "6"))),
    evaluation=kn.Evaluation(every=3),
    engine="reference",
)
