"""An engine whose sums go through the messages of a secure sum where an algorithm asks for that."""

from __future__ import annotations

from koinon.channel.secure_sum import by_messages, secure_sum_of
from koinon.core.execution import Engine, Plan
from koinon.core.types import Job, Partial, Payload, Purpose
from koinon.errors import UnsupportedError
from koinon.tree import Tree


class ProtocolEngine:
    """Computes as ``engine`` does, and sums under ``SecureSum(simulate="protocol")`` by the protocol itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """What the engine within is called."""
        return self._engine.name

    def run(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Compute every task. Raises UnsupportedError without what the protocol needs."""
        if not by_messages(plan.algorithm) or job.purpose is not Purpose.TRAIN or not len(job.tasks):
            return self._engine.run(plan, job, states)
        try:
            from koinon.engines.masked_round import masked_round
        except ModuleNotFoundError as error:
            raise UnsupportedError(
                f"{secure_sum_of(plan.algorithm)!r} needs {error.name}, which is not installed. Run: pip install 'koinon[privacy]'"
            ) from error
        return masked_round(self._engine, plan, job, states)

    def send(self, plan: Plan, job: Job, states: Tree) -> tuple[Payload, Tree]:
        """Compute the one task of ``job``."""
        return self._engine.send(plan, job, states)
