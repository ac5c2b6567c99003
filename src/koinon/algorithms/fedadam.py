"""FedAdam. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2."""

from __future__ import annotations

from koinon.algorithms.assemble import assemble
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Sampler, Transform
from koinon.server.adaptive import Adaptive, SecondMoment
from koinon.work.local import LocalTraining
from koinon.work.optimizers import Optimizer, Sgd
from koinon.work.schedules import Constant, LearningRateSchedule


def fedadam(
    step: Optimizer | None = None,
    *,
    server_learning_rate: float = 0.01,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 1e-3,
    epochs: int = 1,
    batch_size: int | None = 32,
    steps: int | None = None,
    schedule: LearningRateSchedule | None = None,
    cohort: int | Sampler | None = None,
    channel: tuple[Transform, ...] = (),
) -> Algorithm:
    """FedAvg with an adaptive server, whose second moment averages the squares of the mean updates exponentially.

    ``tau`` is how adaptive it is: smaller is more. The other arguments are those of
    :func:`~koinon.algorithms.fedavg.fedavg`.
    """
    work = LocalTraining(
        optimizer=step or Sgd(), epochs=epochs, batch_size=batch_size, steps=steps, schedule=schedule or Constant()
    )
    server = Adaptive(
        second_moment=SecondMoment.ADAM,
        learning_rate=server_learning_rate,
        beta_1=beta_1,
        beta_2=beta_2,
        tau=tau,
    )
    return assemble("fedadam", work, server, cohort, channel)
