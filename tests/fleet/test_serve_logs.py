"""What a coordinator logs: every event once, each line one JSON object, and nothing that is secret."""

import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import Fleet, simulated

from koinon.fleet.service import log

SECONDS = 60.0
APP = """
import os
from dataclasses import replace

import numpy as np

import koinon as kn


def train(params, data, task):
    spoil = os.environ.get("SPOIL")
    if spoil == "raise":
        raise ValueError("there is no column \\x1b[2J age")
    moved = params["mean"] + data[0].mean(axis=0)
    return {"mean": moved * (np.nan if spoil == "nan" else 1.0)}, len(data[0]), {"loss": 0.0}


names = ("lyon", "nice", "paris", "rome")
app = kn.App(
    model=kn.OwnLoop(params={"mean": np.zeros(2)}, train=train),
    clients={name: (np.ones((4, 2)), np.zeros(4)) for name in names},
    algorithm=replace(kn.fedavg(), schedule=kn.Synchronous(clients=3, quorum=0.5, shortest=60.0)),
    stop=kn.Stop(rounds=3),
)
"""


class Logged:
    """A fleet whose coordinator's standard error is a file of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        app = folder / "mean.py"
        app.write_text(APP)
        self.fleet = Fleet(folder, app, serve=options)
        self.errors = folder / "errors"
        self.fleet.coordinator._line[:0] = ["sh", "-c", f'exec "$@" 2>>"{self.errors}"', "sh"]

    def lines(self) -> list[dict[str, Any]]:
        """Return what standard error holds: objects, and nothing else."""
        return [json.loads(line) for line in self.errors.read_text().splitlines()]

    def events(self, word: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        return [line for line in self.lines() if line["event"] == word]

    def until(self, word: str, count: int = 1) -> None:
        """Wait for so many events of a kind."""
        self.fleet.until(f"{count} x {word}", lambda: len(self.events(word)) >= count, SECONDS)


@pytest.mark.slow
def test_every_event_of_a_run_is_one_json_object_without_any_secret(tmp_path: Path) -> None:
    logged = Logged(tmp_path, "--log-json")
    links = []
    with logged.fleet as fleet:
        fleet.serve()
        run = fleet.run()["run"]
        fleet.admin("POST", f"/v1/admin/runs/{run}/pause")
        for name, spoil in (("lyon", ""), ("paris", "nan"), ("rome", "raise"), ("nice", "")):
            links.append(fleet.invite(name))
            fleet.join(name, link=links[-1], environment={"SPOIL": spoil})
            if name in ("rome", "nice"):  # the first three open round 1, with or without the fourth
                logged.until("joined", len(links))
        fleet.admin("POST", f"/v1/admin/runs/{run}/resume")
        logged.until("failed")
        (rome,) = (
            party["client"] for party in fleet.admin("GET", "/v1/admin/status")["clients"] if party["name"] == "rome"
        )
        fleet.admin("POST", f"/v1/admin/clients/{rome}/revoke")
        assert fleet.coordinator.wait(SECONDS) == 0, fleet.story()
        assert fleet.participants["lyon"].wait(SECONDS) == 0, fleet.story()
    _no_secrets(logged.errors.read_text(), [*links, (fleet.store / "admin.json").read_text()])
    first, *_, last = logged.lines()
    assert (first["event"], first["runs"], last["event"]) == ("started", {run: "mean"}, "stopped")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in logged.lines())
    assert [line["change"] for line in logged.events("changed")] == ["paused", "resumed"]
    assert {line["name"] for line in logged.events("enrolled")} == {"lyon", "nice", "paris", "rome"}
    assert [line["name"] for line in logged.events("revoked")] == ["rome"]
    assert {line["client"] for line in logged.events("failed")} == {rome}
    assert "ValueError: there is no column" in logged.events("failed")[0]["reason"]
    refused = logged.events("refused")
    assert {(line["name"], line["code"]) for line in refused} == {("paris", "refused")}
    assert {line["round"] for line in refused} == {1, 2, 3}
    committed = [(line["round"], line["name"]) for line in logged.events("committed") if line["purpose"] == "train"]
    early = {(1, "nice"), (2, "nice")}  # a round is drawn while the one before works: perhaps before the fourth came
    assert set(committed) - early == {(1, "lyon"), (2, "lyon"), (3, "lyon"), (3, "nice")}
    assert len(set(committed)) == len(committed)
    settled = [line for line in logged.events("settled") if line["purpose"] == "train"]
    assert [line["round"] for line in settled] == [1, 2, 3]
    assert (settled[0]["lost"].keys(), settled[0]["counted"]) == ({rome}, settled[0]["asked"] - 1)
    assert settled[1]["counted"] == 2 + ((2, "nice") in committed) and settled[2]["counted"] == 3
    assert all(line["seconds"] > 0 for line in settled)
    assert {line["round"] for line in logged.events("asked")} == {1, 2, 3}
    finished = logged.events("finished")
    assert [(line["round"], line["refused"]) for line in finished] == [(1, 1), (2, 1), (3, 1)]
    (ended,) = logged.events("ended")
    assert (ended["state"], ended["stopped"]) == ("finished", "rounds: all 3 are done")
    assert ended["digest"] == fleet.coordinator.said().rpartition("digest ")[2].strip()


@pytest.mark.slow
def test_being_told_to_end_is_in_the_log_and_no_link_is_said_where_only_programs_listen(tmp_path: Path) -> None:
    logged = Logged(tmp_path, "--log-json", "--json", "--links", "2")
    with logged.fleet as fleet:
        fleet.serve()
        fleet.admin("POST", f"/v1/admin/runs/{fleet.run()['run']}/cancel")
        logged.until("changed")
        assert fleet.admin("GET", "/v1/admin/status")["invitations_open"] == 0
        fleet.coordinator.signal(signal.SIGTERM)
        fleet.coordinator.wait(SECONDS)
    assert [line["event"] for line in logged.lines()][:2] == ["started", "changed"]
    assert any("Told to end" in line.get("message", "") for line in logged.lines())
    assert "token" not in logged.errors.read_text() + fleet.coordinator.said()


@pytest.mark.slow
def test_a_run_that_rests_below_its_quorum_says_so_and_says_when_it_goes_on(tmp_path: Path) -> None:
    terms = ("clients=2", "quorum=1.0", "retries=0", "shortest=1.0", "longest=1.0")
    changes = [word for term in terms for word in ("--set", f"algorithm.schedule.{term}")]
    logged = Logged(tmp_path, "--log-json", *changes)
    with logged.fleet as fleet:
        fleet.changes = changes
        fleet.serve()
        fleet.join("lyon")
        nice = fleet.join("nice", environment={"SPOIL": "raise"})
        logged.until("rests")
        nice.kill()
        nice.environment.pop("SPOIL")
        nice.start()
        logged.until("finished", 3)
        logged.until("rests", 2)
    (began, *_), (*_, over) = logged.events("rests"), logged.events("rests")
    assert (began["level"], began["name"], over["waits_for"]) == ("warning", "mean", None)
    assert re.match(r"1 more client: 1 have answered, and 2 must: nice \(.*no column", began["waits_for"])


@pytest.mark.slow
def test_people_get_short_lines(tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    with logged.fleet as fleet:
        fleet.serve()
        fleet.join("lyon", environment={"SPOIL": ""})
        fleet.until("it is said", lambda: "has joined" in logged.errors.read_text(), SECONDS)
    enrolled, joined = logged.errors.read_text().splitlines()[:2]
    assert re.fullmatch(r"\d\d:\d\d:\d\d lyon has enrolled \(c-[0-9a-f]{16}\)", enrolled)
    assert re.fullmatch(r"\d\d:\d\d:\d\d lyon has joined mean with 4 examples", joined)


@pytest.mark.slow
def test_trackers_get_every_round_once_over_all_lives_of_a_coordinator(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    logged = Logged(tmp_path, "--log-json", "--track", f"tensorboard:{tmp_path / 'runs'}")
    with logged.fleet as fleet:
        fleet.serve()
        for name in ("lyon", "nice", "paris", "rome"):
            fleet.join(name)
        logged.until("finished")
        fleet.coordinator.kill()
        fleet.serve()
        assert fleet.coordinator.wait(SECONDS) == 0, fleet.story()
        run = logged.events("started")[0]["runs"]
        said = fleet.coordinator.said()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith(f"-{next(iter(run))}")
    files = sorted(folder.rglob("events*"), key=lambda path: path.stat().st_mtime)
    assert _steps(files[-1], events) == [1, 2, 3]
    assert f"digest {simulated(fleet.app, tmp_path)}" in said


def test_nothing_is_installed_by_an_import() -> None:
    code = (
        "import logging, koinon.fleet.service.log, koinon.cli.fleet\n"
        "loggers = [logging.getLogger(n) for n in ('', 'koinon', 'koinon.fleet', 'koinon.fleet.events', 'uvicorn')]\n"
        "assert not any(logger.handlers for logger in loggers)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_json_has_no_word_for_is_null_and_other_records_are_objects_too() -> None:
    event = log.Event("finished", "", {"figures": {"loss": float("nan"), "accuracy": 0.5}})
    record = logging.LogRecord("koinon.fleet", logging.INFO, "", 0, event, None, None)
    assert json.loads(log.JsonFormatter().format(record))["figures"] == {"loss": None, "accuracy": 0.5}
    other = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "two\nlines of %s", ("it",), None)
    text = log.JsonFormatter().format(other)
    assert "\n" not in text
    assert json.loads(text)["message"] == "two\nlines of it"
    assert json.loads(text)["event"] == "trouble"


def test_what_a_party_wrote_stays_in_its_line() -> None:
    event = log.Event("failed", "nice cannot answer: \x1b[2J\nforged", {})
    record = logging.LogRecord("koinon.fleet", logging.WARNING, "", 0, event, None, None)
    line = log.PlainFormatter().format(record)
    assert line.endswith(r"nice cannot answer: \x1b[2J\nforged")


def _no_secrets(text: str, secrets: list[str]) -> None:
    """Fail for a secret that is known, and for anything that is as long as a token and no digest."""
    for secret in secrets:
        for word in re.findall(r"[A-Za-z0-9_-]{20,}", secret):
            assert word not in text
    assert re.findall(r"[A-Za-z0-9_-]{28,}", re.sub(r"\b[0-9a-f]{64}\b", "", text)) == []


def _steps(file: Path, events: Any) -> list[int]:
    """Return the steps of the training loss in a file of TensorBoard."""
    data, place, found = file.read_bytes(), 0, []
    while place < len(data):
        size = int.from_bytes(data[place : place + 8], "little")
        event = events.Event.FromString(data[place + 12 : place + 12 + size])
        found += [event.step for value in event.summary.value if value.tag == "train_loss"]
        place += 16 + size
    return found
