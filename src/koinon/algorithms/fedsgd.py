"""FedSGD. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017."""

from __future__ import annotations

from koinon.algorithms.assemble import assemble
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Sampler, Transform
from koinon.server.average import Average
from koinon.work.gradient import FullGradient
from koinon.work.schedules import Constant, LearningRateSchedule


def fedsgd(
    learning_rate: float = 0.1,
    *,
    batch_size: int | None = 256,
    schedule: LearningRateSchedule | None = None,
    cohort: int | Sampler | None = None,
    channel: tuple[Transform, ...] = (),
) -> Algorithm:
    """One step of the server along the mean of the clients' full gradients, weighted by examples.

    ``batch_size`` only says in how large pieces a client computes its gradient, not what it is.
    """
    work = FullGradient(batch_size=batch_size, schedule=schedule or Constant())
    server = Average(learning_rate)
    return assemble("fedsgd", work, server, cohort, channel)
