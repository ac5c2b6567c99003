"""The engine in this process."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from koinon import tree
from koinon.core.execution import Plan
from koinon.core.protocols import Offers
from koinon.core.types import Job, Partial, Variables
from koinon.engines.catalogue import engine as new_engine
from koinon.engines.protocol import ProtocolEngine
from koinon.round.hidden import void_draw
from koinon.tree import Array, Tree


class Local:
    """Computes whole rounds in this process.

    The bits of some sums depend on the number of threads JAX was started with, so only a process with one
    such thread gives the results of every other runtime: ``koinon.runtimes.choose`` sees to that.
    """

    offers = frozenset({Offers.CLIENT_STATE, Offers.COMPILED, Offers.APART, Offers.HANDSHAKE})

    def __init__(self, engine: str = "jax") -> None:
        self.engine = engine
        self._engine = ProtocolEngine(new_engine(engine))

    def initial(self, plan: Plan, key: Array) -> Variables:
        """Return the model's first variables."""
        variables: Variables = tree.to_numpy(plan.model.init(key))
        return variables

    def round(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Return the round's total."""
        return void_draw(plan.algorithm, job) or self._engine.run(plan, job, states)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
