"""A run whose updates travel as whole numbers of 8 bits."""

from dataclasses import replace

import koinon as kn
import linear
from koinon.core.algorithm import Synchronous

patient = Synchronous(clients=2, quorum=1.0, shortest=600.0, longest=600.0)

app = kn.App(
    model=linear.LinearModel(),
    clients={f"party-{i}": examples for i, examples in enumerate(linear.clients().values())},
    algorithm=replace(kn.fedavg(kn.sgd(0.01), batch_size=2, channel=(kn.Quantise(),)), schedule=patient),
    stop=kn.Stop(rounds=10_000),
)
