"""FedAvg. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017."""

from __future__ import annotations

from koinon.aggregate.mean import Mean
from koinon.algorithms.assemble import sampler
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Sampler, Transform
from koinon.server.average import Average
from koinon.work.local import LocalTraining
from koinon.work.optimizers import Optimizer, Sgd


def fedavg(
    step: Optimizer | None = None,
    *,
    epochs: int = 1,
    batch_size: int | None = 32,
    cohort: int | Sampler | None = None,
    channel: tuple[Transform, ...] = (),
) -> Algorithm:
    """Local training on each client, the mean of the updates weighted by examples on the server.

    ``step`` is the client's optimiser, ``Sgd(0.1)`` unless given.
    """
    work = LocalTraining(optimizer=step or Sgd(), epochs=epochs, batch_size=batch_size)
    return Algorithm(
        name="fedavg", work=work, server=Average(), aggregator=Mean(), sampler=sampler(cohort), channel=channel
    )
