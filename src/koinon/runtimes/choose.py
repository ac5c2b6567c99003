"""Which runtime a name means, and whether this process may compute for itself."""

from __future__ import annotations

import os

from koinon.core.execution import Runtime
from koinon.core.protocols import Model
from koinon.errors import ConfigurationError
from koinon.runtimes.local import Local
from koinon.runtimes.processes import Processes

RUNTIMES = ("local", "processes")


def runtime(name: str, *, engine: str, workers: int | None, model: Model) -> Runtime:
    """Return a new runtime.

    ``local`` computes in this process where that gives the bits of every other runtime: where JAX has one
    computing thread (``NPROC=1`` in the environment, as koinon's own programs set it before JAX starts) and
    nothing else has claimed the model's framework. Elsewhere it computes in one worker process beside this
    one, and leaves this process's settings alone.
    """
    if name == "processes":
        return Processes(workers, engine)
    if name != "local":
        raise ConfigurationError(f"There is no runtime {name!r}. The runtimes are {', '.join(RUNTIMES)}.")
    if workers is not None and workers != 1:
        raise ConfigurationError(
            f"The runtime 'local' has one worker; {workers} were asked for. Use runtime='processes', workers={workers}."
        )
    if not model.compiled or (os.environ.get("NPROC") == "1" and model.computable_here()):
        return Local(engine)
    return Processes(1, engine)
