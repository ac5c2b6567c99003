"""FedProx. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020."""

from __future__ import annotations

from koinon.algorithms.assemble import assemble
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Sampler, Transform
from koinon.server.average import Average
from koinon.work.corrections import Proximal
from koinon.work.local import LocalTraining
from koinon.work.optimizers import Optimizer, Sgd
from koinon.work.schedules import Constant, LearningRateSchedule


def fedprox(
    mu: float = 0.01,
    step: Optimizer | None = None,
    *,
    epochs: int = 1,
    batch_size: int | None = 32,
    steps: int | None = None,
    schedule: LearningRateSchedule | None = None,
    cohort: int | Sampler | None = None,
    channel: tuple[Transform, ...] = (),
) -> Algorithm:
    """FedAvg with a pull of strength ``mu`` of every local step towards the global model.

    ``mu = 0`` is FedAvg. The other arguments are those of :func:`~koinon.algorithms.fedavg.fedavg`.
    """
    work = LocalTraining(
        optimizer=step or Sgd(),
        epochs=epochs,
        batch_size=batch_size,
        steps=steps,
        schedule=schedule or Constant(),
        corrections=(Proximal(mu),),
    )
    server = Average()
    return assemble("fedprox", work, server, cohort, channel)
