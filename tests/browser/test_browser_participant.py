"""Web pages take part in a real run: Chromium, a real coordinator, and the page served from elsewhere."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import koinon as kn
from fleet.processes import Fleet
from koinon.cli.app_file import load
from koinon.data.dataset import FederatedDataset

PAGE = Path(__file__).parents[2] / "examples" / "browser"
SMALL = PAGE / "app.py"
WIDE = Path(__file__).with_name("wide_app.py")
DRIVER = Path(__file__).with_name("participant.mjs")
UNRELIABLE = Path(__file__).with_name("unreliable.mjs")
SECONDS = 90


def _browser_is_missing() -> str | None:
    """Return what these tests need and do not find."""
    if not Path("/usr/bin/chromium").exists():
        return "Chromium is not at /usr/bin/chromium"
    if shutil.which("node") is None:
        return "Node.js is not installed"
    found = subprocess.run(["node", "-e", "require('playwright-core')"], capture_output=True, timeout=30, check=False)
    return None if found.returncode == 0 else "playwright-core is not in NODE_PATH"


MISSING = _browser_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def page() -> Iterator[str]:
    """Serve the example's folder and return the page's address: another origin than the coordinator's."""
    handler = functools.partial(_Quiet, directory=str(PAGE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/participant.html"
        finally:
            server.shutdown()
            thread.join(10)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Example:
    """An app with what its parties hold."""

    file: Path
    app: kn.App
    data: FederatedDataset


@functools.cache
def example(file: Path) -> Example:
    """Return an app and its made-up parties; like the page's, the last fifth of each one's examples is held out."""
    app = load(file)
    parties = app.clients()
    x, y = (np.concatenate([pair[i] for pair in parties.values()]) for i in (0, 1))
    sizes = np.asarray([len(pair[1]) for pair in parties.values()])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.arange(len(x), dtype=np.int32)
    return Example(file, app, FederatedDataset(x, y, tuple(parties), rows, offsets, sizes // 5))


def fleet(folder: Path, origin: str, *options: str, file: Path = SMALL, tls: bool = False) -> Fleet:
    return Fleet(folder, file, tls=tls, serve=("--allow-origin", origin, "--chunk-bytes", "1024", *options))


def origin_of(page: str) -> str:
    return page.removesuffix("/participant.html")


def party(fleet: Fleet, name: str, file: Path = SMALL, **more: Any) -> dict[str, Any]:
    """Return what one party's page is filled with."""
    data = example(file).data
    start, stop = data.offsets[data.names.index(name) :][:2]
    rows = [",".join(map(str, [*map(float, data.x[i]), int(data.y[i])])) for i in range(start, stop)]
    own = {"link": fleet.invite(name), "name": name, "app": "", "p256": False}
    return {**own, "examples": "\n".join(rows), **more}


def node(script: Path, scenario: dict[str, Any]) -> Any:
    """Return what a script makes of a scenario."""
    pipe = subprocess.PIPE
    driver = subprocess.Popen(
        ["node", str(script)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        out, said = driver.communicate(json.dumps(scenario), timeout=2 * SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)  # a browser too, however its driver ended
        driver.wait(10)
    assert driver.returncode == 0, said[-3000:]
    return json.loads(out)


def visits(page: str, *parties: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the parties saw, each in a browser of its own, when their pages have ended."""
    return list(node(DRIVER, {"url": page, "seconds": SECONDS, "parties": parties}))


@pytest.mark.parametrize(
    ("file", "pieces", "kinds", "tls"),
    [(SMALL, 1, (False, False), False), (SMALL, 1, (True, True), False), (WIDE, 3, (False, True), True)],
    ids=["Ed25519", "P-256", "both, in pieces, over TLS"],
)
def test_pages_train_to_the_end_as_the_simulation_does(
    page: str, tmp_path: Path, file: Path, pieces: int, kinds: tuple[bool, bool], tls: bool
) -> None:
    names, rounds = example(file).data.names, example(file).app.stop.rounds
    with fleet(tmp_path, origin_of(page), "--stay", file=file, tls=tls) as running:
        running.serve()
        parties = [party(running, name, file, p256=p256) for name, p256 in zip(names, kinds, strict=True)]
        seen = visits(page, *parties)
        digest = running.finishes(30)
        status = running.admin("GET", "/v1/admin/status")
    wanted = [
        f"round {i}, {purpose}: sent, with weight" for i in range(1, rounds + 1) for purpose in ("train", "evaluate")
    ]
    for one in seen:
        assert one["status"].startswith("Finished: ")
        assert one["status"].endswith(
            f"Digest {digest}. All {2 * rounds} answers of this page are in the signed receipts."
        )
        assert [line.rpartition(" ")[0] for line in one["log"]] == wanted
        assert one["console"] == []
        assert len({call["range"] for call in one["asked"]} - {None}) == pieces
        assert len({call["path"].rpartition("/")[2] for call in one["asked"] if call["method"] == "PUT"}) == pieces
    kinds_of = {name: "p256" if p256 else "ed25519" for name, p256 in zip(names, kinds, strict=True)}
    assert {client["name"]: client["kind"] for client in status["clients"]} == kinds_of
    found = status["runs"][0]
    assert {client["name"]: client["rounds_done"] for client in found["clients"]} == dict.fromkeys(names, rounds)
    assert_as_simulated(found, file)


def assert_as_simulated(found: dict[str, Any], file: Path) -> None:
    """Assert that a run went as ``koinon run`` would have gone, but for how JavaScript rounds."""
    app = example(file).app
    alike = kn.fit(app.model, example(file).data, app.algorithm, stop=app.stop, progress=False).history.rows()
    assert [(row["cohort"], row["refused"], row["lost"]) for row in found["history"]] == [(2, {}, {})] * len(alike)
    for ours, theirs in zip(alike, found["history"], strict=True):
        for figure in ("train_loss", "loss", "accuracy"):
            assert theirs[figure] == pytest.approx(ours[figure], abs=1e-5), (figure, ours, theirs)
    assert found["history"][-1]["train_loss"] < 0.7 * found["history"][0]["train_loss"]


def test_a_page_trains_together_with_koinon_join(page: str, tmp_path: Path) -> None:
    with fleet(tmp_path, origin_of(page), "--stay") as running:
        running.serve()
        process = running.join("lyon")
        [seen] = visits(page, party(running, "paris"))
        assert process.wait(30) == 0, process.said()
        found = running.run()
    assert "answers of this page are in the signed receipts" in seen["status"], seen
    assert [(row["cohort"], row["refused"], row["lost"]) for row in found["history"]] == [(2, {}, {})] * 8
    assert found["history"][-1]["loss"] < 0.7 * found["history"][0]["loss"]


def test_a_reloaded_page_goes_on_as_the_same_client(page: str, tmp_path: Path) -> None:
    with fleet(tmp_path, origin_of(page), "--stay") as running:
        running.serve()
        reloaded = party(running, "lyon", reload="round 2, train")
        seen = visits(page, party(running, "paris"), reloaded)
        running.finishes(30)
        status = running.admin("GET", "/v1/admin/status")
    assert all(one["status"].startswith("Finished") for one in seen), seen
    assert sorted(client["name"] for client in status["clients"]) == ["lyon", "paris"]
    assert [row["lost"] for row in status["runs"][0]["history"]] == [{}] * status["runs"][0]["rounds"]
    assert sum(call["path"] == "/v1/enrol" for call in seen[1]["asked"]) == 1


def test_pages_outlive_a_coordinator_that_is_killed(page: str, tmp_path: Path) -> None:
    with fleet(tmp_path, origin_of(page), "--stay") as running, ThreadPoolExecutor(1) as pool:
        running.serve()
        pages = pool.submit(visits, page, party(running, "paris"), party(running, "lyon"))
        running.reaches(2, SECONDS)
        assert running.run()["state"] != "finished"
        running.coordinator.kill()
        running.serve()
        seen = pages.result(2 * SECONDS)
        found = running.run()
    assert all("All 16 answers of this page are in the signed receipts" in one["status"] for one in seen), seen
    assert_as_simulated(found, SMALL)


def test_a_second_tab_of_a_party_ends_the_first_and_the_coordinator_ends_with_the_run(
    page: str, tmp_path: Path
) -> None:
    with fleet(tmp_path, origin_of(page)) as running:
        running.serve()
        seen, _ = visits(page, party(running, "lyon", again="round 1, train"), party(running, "paris"))
        assert running.coordinator.wait(10) == 0, "both have said goodbye, so it need not wait for 30 s"
    assert seen["older"].startswith("Stopped. Another process has begun a session with this client's key.")
    assert seen["status"].startswith("Finished")


def test_the_browser_refuses_a_page_from_an_origin_that_is_not_on_the_list(page: str, tmp_path: Path) -> None:
    with fleet(tmp_path, "http://127.0.0.1:9") as running:
        running.serve()
        [seen] = visits(page, party(running, "paris"))
        status = running.admin("GET", "/v1/admin/status")
    assert "cannot be called from this page" in seen["status"]
    assert f"--allow-origin {origin_of(page)}" in seen["status"]
    assert any("blocked by CORS policy" in line for line in seen["console"]), seen
    assert status["clients"] == []
    assert status["invitations_open"] >= 1


def test_a_page_refuses_an_app_it_was_not_made_for(page: str, tmp_path: Path) -> None:
    with fleet(tmp_path, origin_of(page)) as running:
        running.serve()
        [seen] = visits(page, party(running, "paris", app="0" * 64))
        run = running.run()
    assert f"made for app {'0' * 64}, and the run is of {run['app']}" in seen["status"]
    assert run["clients"] == []


def test_two_pages_exchange_signed_messages(page: str, tmp_path: Path) -> None:
    with fleet(tmp_path, origin_of(page)) as running:
        running.serve()
        paris = party(running, "paris", greeting="from paris: κοινόν")
        lyon = party(running, "lyon", greeting="from lyon", p256=True)
        to_paris, to_lyon = (seen["greeted"] for seen in visits(page, paris, lyon))
    assert sorted((to_paris.pop("number"), to_lyon.pop("number"))) == [1, 2]
    assert to_paris == {"from": "lyon", "words": "from lyon", "signed": True, "forged": False}
    assert to_lyon == {"from": "paris", "words": "from paris: κοινόν", "signed": True, "forged": False}


@pytest.mark.parametrize("first", [0, 5])
def test_a_network_that_loses_and_damages_changes_nothing(tmp_path: Path, first: int) -> None:
    with fleet(tmp_path, "http://127.0.0.1:9", "--stay", file=WIDE) as running:
        running.serve()
        parties = [party(running, name, WIDE) for name in example(WIDE).data.names]
        seen = node(UNRELIABLE, {"folder": str(PAGE), "first": first, "parties": parties})
        running.finishes(30)
        found = running.run()
    assert [one["last"]["state"] for one in seen["parties"]] == ["finished"] * 2, seen
    assert all(count > 0 for count in seen["faults"].values()), seen["faults"]
    assert_as_simulated(found, WIDE)
