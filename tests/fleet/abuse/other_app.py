"""A second run beside that of ``app.py``: the same model, other steps."""

from dataclasses import replace

import koinon as kn
import linear
from koinon.core.algorithm import Synchronous

patient = Synchronous(clients=2, quorum=1.0, shortest=600.0, longest=600.0)

app = kn.App(
    model=linear.LinearModel(),
    clients={f"party-{i}": examples for i, examples in enumerate(linear.clients().values())},
    algorithm=replace(kn.fedavg(kn.sgd(0.01), batch_size=2), schedule=patient),
    stop=kn.Stop(rounds=10_000),
)
