"""MLflow: one tracked run per run, on a tracking server.

A tracked run is found again by its tag ``koinon.run``, and is asked which rounds it already has.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from koinon.core.events import RoundRecord, RunFinished, RunStarted
from koinon.errors import ConfigurationError
from koinon.report.tracking.sink import Sink, figures, label, missing

RUN_TAG = "koinon.run"
_MARK = "seconds"  # a figure that every round has
_METRICS, _VALUE = 1000, 500  # what MLflow takes in one request, and of one value
_REACH_SECONDS = 5.0
_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


class MLflow(Sink):
    """Logs every figure as a metric by round, the identity as parameters, digest and why it stopped as tags.

    ``server`` is a tracking URI, ``experiment`` a name, made if there is none. Credentials, certificates and
    retries are MLflow's own environment variables. Its telemetry is switched off unless
    ``MLFLOW_DISABLE_TELEMETRY`` says otherwise. Raises UnsupportedError without mlflow (or mlflow-skinny).
    """

    def __init__(self, server: str, experiment: str) -> None:
        if not server or not experiment:
            raise ConfigurationError(
                f"MLflow needs a server and an experiment, and was given {server!r}, {experiment!r}."
            )
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)  # read when mlflow is imported
        try:
            import mlflow
        except ImportError as error:
            raise missing("MLflow", "mlflow") from error
        parts = urlsplit(server)
        self._address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # no name and no password
        super().__init__(f"MLflow({self._address!r}, {experiment!r})")
        self._server, self._experiment = server, experiment
        self._mlflow: Any = mlflow
        self._client: Any = None
        self._run = ""

    def begin(self, started: RunStarted) -> None:
        """Find or make the run, log its parameters, and the rounds it lacks."""
        if urlsplit(self._address).scheme in ("http", "https"):
            _reach(self._address)
        self._client = self._mlflow.MlflowClient(tracking_uri=self._server)
        experiment = self._experiment_id()
        found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{started.run}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            made = self._client.create_run(experiment, run_name=label(started), tags={RUN_TAG: started.run})
            self._run = made.info.run_id
        param = self._mlflow.entities.Param
        parameters = flat({"clients": started.clients, **started.identity})
        self._client.log_batch(self._run, params=[param(*pair) for pair in parameters])
        known = {metric.step for metric in self._client.get_metric_history(self._run, _MARK)} if found else set()
        self.log([record for record in started.past if record.round not in known])

    def log(self, records: Sequence[RoundRecord]) -> None:
        """Log the rounds, as many whole ones in a call as MLflow takes."""
        now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
        batch: list[Any] = []
        for record in records:
            own = [metric(_allowed(name), value, now, record.round) for name, value in figures(record).items()]
            if batch and len(batch) + len(own) > _METRICS:
                self._client.log_batch(self._run, metrics=batch)
                batch = []
            batch += own
        if batch:
            self._client.log_batch(self._run, metrics=batch)

    def end(self, finished: RunFinished | None) -> None:
        """Log how the run ended: FINISHED, FAILED if it diverged, KILLED if it was cut short."""
        if finished is not None:
            self._client.set_tag(self._run, "koinon.stopped", finished.stopped)
            self._client.set_tag(self._run, "koinon.digest", finished.digest)
        diverged = finished is not None and finished.stopped.startswith("diverged")
        self._client.set_terminated(self._run, "KILLED" if finished is None else "FAILED" if diverged else "FINISHED")

    def _experiment_id(self) -> Any:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return found.experiment_id
        try:
            return self._client.create_experiment(self._experiment)
        except self._mlflow.MlflowException:  # another run was faster
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return found.experiment_id


def _reach(address: str) -> None:
    """Raise the reason if nobody answers there: MLflow itself tries for minutes before it says so."""
    try:
        with urlopen(f"{address.rstrip('/')}/health", timeout=_REACH_SECONDS):
            return
    except HTTPError:  # somebody answers, and MLflow knows how to talk to them
        return
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow has its own settings of what to trust
            raise


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values as ``(dotted name, text)``; a list is one value, and a long text is cut.

    >>> dict(flat({"seed": 1, "work": {"epochs": 2, "steps": None}, "channel": [{"norm": 1.0}]}))
    {'seed': '1', 'work.epochs': '2', 'work.steps': 'null', 'channel': '[{"norm": 1.0}]'}
    """
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        yield _allowed(f"{prefix}{name}")[:250], text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}..."


def _allowed(name: str) -> str:
    """Return a name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
