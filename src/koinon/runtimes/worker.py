"""A worker process: it answers what its driver asks until the driver is gone.

Requests are ``Prepare`` (a plan, kept under its number), ``Compute`` (a job for a kept plan) and ``Begin``
(the first variables of a kept plan's model). The answer is a value or ``Failed``.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import numpy as np

from koinon import tree
from koinon.core.execution import Plan
from koinon.core.types import Job
from koinon.engines.catalogue import engine
from koinon.engines.protocol import ProtocolEngine
from koinon.runtimes import parcel
from koinon.tree import Array, Tree


@dataclass(frozen=True)
class Prepare:
    """Keep a plan under a number."""

    number: int
    plan: Plan


@dataclass(frozen=True)
class Begin:
    """Initialise the model of a kept plan."""

    number: int
    key: Array


@dataclass(frozen=True)
class Compute:
    """Run a job of a kept plan; its broadcast follows as a parcel of its own."""

    number: int
    job: Job
    states: Tree


@dataclass(frozen=True)
class Forget:
    """Drop a plan that is no longer used."""

    number: int


@dataclass(frozen=True)
class Failed:
    """What went wrong, with the traceback as text."""

    error: BaseException
    trace: str


class Worker:
    """The plans of one worker and the engine that computes them."""

    def __init__(self, engine_name: str) -> None:
        self._engine = ProtocolEngine(engine(engine_name))
        self._plans: dict[int, Plan] = {}

    def answer(self, request: Any, source: socket.socket) -> Any:
        """Return the answer to one request."""
        if isinstance(request, Prepare):
            self._plans[request.number] = request.plan
            return None
        if isinstance(request, Forget):
            self._plans.pop(request.number, None)
            return None
        if isinstance(request, Begin):
            return tree.to_numpy(self._plans[request.number].model.init(np.array(request.key)))
        broadcast = parcel.receive(source)
        job = replace(request.job, broadcast=broadcast)
        return self._engine.run(self._plans[request.number], job, request.states)


def serve(connection: socket.socket) -> None:
    """Answer requests until the driver closes or dies."""
    worker = None
    while True:
        try:
            request = parcel.receive(connection)
        except (EOFError, OSError):
            return
        except Exception as error:  # noqa: BLE001 - whatever stopped it from being rebuilt here, the driver is told
            answer: Any = _failed(error)
        else:
            try:
                if worker is None:
                    worker = Worker(request)  # the first request is the engine's name
                    answer = None
                else:
                    answer = worker.answer(request, connection)
            except Exception as error:  # noqa: BLE001 - the driver raises it
                answer = _failed(error)
        try:
            parcel.send(answer, connection)
        except OSError:
            return


def _failed(error: Exception) -> Failed:
    trace = traceback.format_exc()
    error = error.with_traceback(None)
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception of any kind may refuse to travel
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Failed(error, trace)


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        connection.set_inheritable(False)
        serve(connection)
    sys.stdout.flush()
    os._exit(0)  # nothing is left to save, and a framework's teardown may take seconds
