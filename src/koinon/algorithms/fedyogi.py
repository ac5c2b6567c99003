"""FedYogi. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2."""

from __future__ import annotations

from koinon.aggregate.mean import Mean
from koinon.algorithms.assemble import sampler
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Sampler, Transform
from koinon.server.adaptive import Adaptive, SecondMoment
from koinon.work.local import LocalTraining
from koinon.work.optimizers import Optimizer, Sgd
from koinon.work.schedules import Constant, LearningRateSchedule


def fedyogi(
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
    """FedAvg with an adaptive server, whose second moment moves the second moment by the sign of its error, so that it grows no faster than the squares.

    ``tau`` is how adaptive it is: smaller is more. The other arguments are those of
    :func:`~koinon.algorithms.fedavg.fedavg`.
    """
    work = LocalTraining(
        optimizer=step or Sgd(), epochs=epochs, batch_size=batch_size, steps=steps, schedule=schedule or Constant()
    )
    server = Adaptive(
        second_moment=SecondMoment.YOGI,
        learning_rate=float(server_learning_rate),
        beta_1=float(beta_1),
        beta_2=float(beta_2),
        tau=float(tau),
    )
    return Algorithm(
        name="fedyogi", work=work, server=server, aggregator=Mean(), sampler=sampler(cohort), channel=channel
    )
