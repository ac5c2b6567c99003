"""FedAvg. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017."""

from __future__ import annotations

from koinon.algorithms.assemble import assemble
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Sampler, Transform
from koinon.server.average import Average
from koinon.work.local import LocalTraining
from koinon.work.optimizers import Optimizer, Sgd
from koinon.work.schedules import Constant, LearningRateSchedule


def fedavg(
    step: Optimizer | None = None,
    *,
    server_learning_rate: float = 1.0,
    server_momentum: float = 0.0,
    epochs: int = 1,
    batch_size: int | None = 32,
    steps: int | None = None,
    schedule: LearningRateSchedule | None = None,
    cohort: int | Sampler | None = None,
    channel: tuple[Transform, ...] = (),
) -> Algorithm:
    """Local training on each client, the mean of the updates weighted by examples on the server.

    ``step`` is the client's optimiser, ``Sgd(0.1)`` unless given; a client takes ``epochs`` over its examples,
    or ``steps`` batches. ``cohort`` is how many clients a round draws, a sampler, or None for all. With
    ``server_momentum`` it is FedAvgM (Hsu et al. 2019, arXiv 1909.06335).
    """
    work = LocalTraining(
        optimizer=step or Sgd(), epochs=epochs, batch_size=batch_size, steps=steps, schedule=schedule or Constant()
    )
    server = Average(server_learning_rate, server_momentum)
    return assemble("fedavg", work, server, cohort, channel)
