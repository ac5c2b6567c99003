"""SCAFFOLD. Karimireddy et al., "Stochastic Controlled Averaging for Federated Learning", ICML 2020."""

from __future__ import annotations

from koinon.algorithms.assemble import assemble
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Sampler, Transform
from koinon.errors import CompositionError
from koinon.server.controlled import Controlled
from koinon.work.controlled import ControlledTraining
from koinon.work.optimizers import Optimizer, Sgd
from koinon.work.schedules import Constant, LearningRateSchedule


def scaffold(
    step: Optimizer | None = None,
    *,
    server_learning_rate: float = 1.0,
    epochs: int = 1,
    batch_size: int | None = 32,
    steps: int | None = None,
    schedule: LearningRateSchedule | None = None,
    cohort: int | Sampler | None = None,
    channel: tuple[Transform, ...] = (),
) -> Algorithm:
    """FedAvg whose local steps are corrected by control variates, against the drift of unlike clients.

    ``step`` must be plain gradient descent, ``Sgd(0.1)`` unless given: the control variates are made from it.
    Each client that takes part keeps its variate; the server's is their mean, weighted like the models.
    The other arguments are those of :func:`~koinon.algorithms.fedavg.fedavg`.
    """
    step = step or Sgd()
    if not isinstance(step, Sgd):
        raise CompositionError(f"SCAFFOLD makes its control variates from plain steps; found {step!r}. Use sgd(...).")
    work = ControlledTraining(
        learning_rate=step.learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        steps=steps,
        schedule=schedule or Constant(),
    )
    server = Controlled(server_learning_rate)
    return assemble("scaffold", work, server, cohort, channel)
