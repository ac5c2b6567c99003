"""MLflow: what a real tracking server on this machine holds afterwards, asked over its own HTTP calls."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from tracking_samples import fit, fit_cut_short, logged

import koinon as kn
from koinon.core.events import RoundFinished, RoundRecord, RunFinished, RunStarted

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before anything imports mlflow
pytest.importorskip("mlflow", reason="mlflow is not installed")


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a tracking server with SQLite, and end it and its workers afterwards."""
    if find_spec("flask") is None:
        pytest.skip("mlflow-skinny has no server: install mlflow")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    line = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # no run needs its job queues
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "mlflow", *line],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,  # fmt: skip
    ):
        try:
            answers(f"http://127.0.0.1:{port}", process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers, for 90 seconds at most."""
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")


def runs(server: str, experiment: str) -> list[Any]:
    """Return the experiment's runs."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


def metrics(server: str, run: Any) -> dict[str, list[tuple[int, float]]]:
    """Return each metric's steps and values, in the order of steps."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    return {
        name: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


@pytest.mark.slow
def test_every_figure_of_every_round_is_on_the_server(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit([kn.MLflow(server, "whole")], rounds=5)
    (tracked,) = runs(server, "whole")
    assert metrics(server, tracked) == logged(run)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["koinon.digest"] == run.digest
    assert tracked.data.tags["koinon.stopped"] == run.stopped
    assert tracked.data.params["algorithm.name"] == run.plan.algorithm.name
    assert tracked.data.params["seed"] == "0"
    assert tracked.data.params["clients"] == "2"
    assert capsys.readouterr().out == ""  # "koinon run --json" prints one object there


@pytest.mark.slow
def test_a_resumed_run_has_neither_a_hole_nor_a_double(server: str, tmp_path: Path) -> None:
    fit_cut_short([kn.MLflow(server, "resumed")], tmp_path / "kept", after=4)
    (tracked,) = runs(server, "resumed")
    assert tracked.info.status == "KILLED"
    assert [step for step, _ in metrics(server, tracked)["train_loss"]] == [1, 2, 3]
    for _ in range(2):  # the second one finds nothing to do
        run = fit([kn.MLflow(server, "resumed")], tmp_path / "kept", rounds=6)
        (tracked,) = runs(server, "resumed")
        assert metrics(server, tracked) == logged(run)
        assert tracked.info.status == "FINISHED"


@pytest.mark.slow
def test_a_run_that_is_tracked_late_is_tracked_whole_even_if_that_breaks_off(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.store.tracking.rest_store import RestStore

    own, sent = RestStore.log_batch, []

    def only_one(self: Any, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
        """Take one request with metrics, and lose the connection in the next one."""
        sent.append(len(metrics))
        if sum(map(bool, sent)) > 1:
            raise ConnectionError("reset by peer")
        own(self, run_id, metrics, params, tags)

    fit([], tmp_path / "kept", rounds=400)
    with monkeypatch.context() as broken:
        broken.setattr(RestStore, "log_batch", only_one)
        fit([kn.MLflow(server, "late")], tmp_path / "kept", rounds=401)
    assert "ConnectionError: reset by peer" in caplog.text
    (tracked,) = runs(server, "late")
    assert {len(pairs) for pairs in metrics(server, tracked).values()} == {142}  # whole rounds of seven figures
    run = fit([kn.MLflow(server, "late")], tmp_path / "kept", rounds=402)
    (tracked,) = runs(server, "late")
    assert metrics(server, tracked) == logged(run)


@pytest.mark.slow
def test_names_and_values_that_mlflow_does_not_take_are_made_fit(server: str, caplog: pytest.LogCaptureFixture) -> None:
    sink = kn.MLflow(server, "odd")
    sink(RunStarted("fedavg", 2, 1, 0, run="one", identity={"précision@5": "x" * 10_000, "empty": {}, "none": None}))
    sink(RoundFinished(RoundRecord(1, 2, {}, {"precision@5": 0.5, "auc": float("nan")}, 0.1)))
    sink(RunFinished("diverged: every client was refused", 1, "0"))
    sink.close()
    assert [record.getMessage() for record in caplog.records if record.name == "koinon.track"] == []
    (tracked,) = runs(server, "odd")
    assert tracked.info.status == "FAILED"
    assert tracked.data.metrics["precision_5"] == 0.5
    assert tracked.data.metrics["auc"] != tracked.data.metrics["auc"]
    assert tracked.data.params["empty"] == "{}"
    assert {len(value) for value in tracked.data.params.values()} == {1, 2, 4, 500}


def test_a_server_that_does_not_answer_is_named_with_the_reason_but_not_with_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = f"127.0.0.1:{free_port()}"
    began = time.perf_counter()
    run = fit([kn.MLflow(f"http://somebody:secret@{address}", "heart")])
    assert time.perf_counter() - began < 10
    assert run.rounds == 3
    (said,) = [record.getMessage() for record in caplog.records if record.name == "koinon.track"]
    assert said.startswith(f"MLflow('http://{address}', 'heart') is dropped: URLError: ")
    assert "Connection refused" in said
    assert "secret" not in caplog.text


@pytest.mark.slow
def test_a_server_that_takes_a_call_and_never_answers_costs_a_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = kn.MLflow(f"http://127.0.0.1:{silent.getsockname()[1]}", "heart")
        began = time.perf_counter()
        fit([sink])
        assert time.perf_counter() - began < 10
    (said,) = [record.getMessage() for record in caplog.records if record.name == "koinon.track"]
    assert "timed out" in said
