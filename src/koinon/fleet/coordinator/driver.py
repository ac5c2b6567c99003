"""The thread that drives one run: the simulator's loop over the fleet, until it is done, whatever the disk does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from koinon import tree
from koinon.core.events import Listener
from koinon.errors import KoinonError, StoreError
from koinon.fleet.coordinator.chain import ReceiptChain
from koinon.fleet.coordinator.run import Cancelled, FleetRun
from koinon.fleet.coordinator.runtime import FleetRuntime, OpenOffice
from koinon.round.driver import Outcome, Surroundings, drive
from koinon.round.training import FederatedTraining

_PAUSE_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Driven:
    """A run with all that drives it."""

    run: FleetRun
    training: FederatedTraining
    engine: str
    chain: Callable[[], ReceiptChain]
    office: OpenOffice
    listen: Listener


class Driver(threading.Thread):
    """Drives one run to its end. ``outcome`` is there when it has ended well."""

    def __init__(self, driven: Driven) -> None:
        super().__init__(name=f"driver of {driven.run.key}", daemon=True)
        self._driven = driven
        self.outcome: Outcome | None = None

    def run(self) -> None:
        """Go on until the run is over; rest where the store cannot be written, and try again."""
        run = self._driven.run
        while run.ended is None:
            try:
                self._drive()
            except Cancelled:
                self._end("cancelled", "cancelled by the operator", None)
            except StoreError as error:
                self._trouble(str(error))
            except KoinonError as error:
                self._end("failed", str(error), None)
            except Exception as error:  # noqa: BLE001 - a fault here must be told to the operator and to the clients
                _LOG.exception("the run has failed")
                self._end("failed", f"{type(error).__name__}: {error}", None)

    def _drive(self) -> None:
        own = self._driven
        runtime = FleetRuntime(own.run, own.training, own.engine, own.chain(), own.office)
        try:
            past = runtime.past(own.training.stop)
            around = Surroundings(runtime, runtime, runtime, own.listen, time.monotonic)
            outcome = drive(own.training, around, past)
            variables = own.training.plan.algorithm.server.variables(outcome.state.server)
            self.outcome = outcome
            self._end("finished", outcome.stopped, runtime.blob(variables), tree.digest(variables["params"]))
        finally:
            runtime.close()

    def _end(self, state: str, stopped: str, model: str | None, digest: str | None = None) -> None:
        try:
            self._driven.run.end(state=state, stopped=stopped, model=model, digest=digest)
        except StoreError as error:
            self._trouble(str(error))

    def _trouble(self, message: str) -> None:
        """Say what is wrong, wait a little."""
        run = self._driven.run
        run.trouble.note(message)
        try:
            run.rest(_PAUSE_SECONDS)
        except Cancelled:
            return
