"""A client as a web page might be one: P-256, ranges, chunks again and again, and everything it may be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fleet.abuse import bare
from golden.sessions.stage import AGREEMENT, CHUNK_BYTES
from koinon.fleet.wire.receipts import canonical
from koinon.fleet.wire.signatures import digest

APP = digest(canonical(AGREEMENT).encode())


def visit(port: int, token: str, operator: str) -> None:
    """Take part in the whole run, making every call of the protocol and the mistakes that it names."""
    page = bare.Party(f"http://127.0.0.1:{port}", "page", bare.Key("p256"))
    _enter(page, token)
    run = page.call("GET", "/v1/runs").json["runs"][0]["run"]
    page.call("GET", f"/v1/runs/{run}")
    page.call("GET", f"/v1/runs/{run}/work?since=0&wait=1")  # 403: it has not joined
    page.join({"run": run, "app": digest(b"another app")})
    page.join({"run": run, "app": APP})

    def operate(what: str) -> None:
        bare.call(page.url, "POST", f"/v1/admin/runs/{run}/{what}", token=operator)

    first = _train(page, run, 0, operate)
    page.call("GET", f"/v1/runs/{run}/clients")
    second = page.work(run, first["serial"], 20).json
    assert second["round"] == 2, second
    bare.Update(page, run, first, b"late", CHUNK_BYTES).announce()  # 410: the round is over
    page.call("POST", f"/v1/runs/{run}/rounds/2/train/failure", {"reason": "the tab was asleep"})
    _train(page, run, second["serial"], operate)
    page.call("GET", f"/v1/runs/{run}/receipts?since=1")
    end = page.work(run, 0, 20).json
    assert end["state"] == "finished", end
    page.work(run, end["serial"], 0)


def _enter(page: bare.Party, token: str) -> None:
    link = f"#token={token}"
    url = page.url
    bare.call(url, "GET", "/v1/runs")  # 401: nobody in particular
    bare.call(url, "POST", "/v1/enrol", page.enrolment("#token=of-nobody"))
    page.enrol(link)
    page.enrol(link)  # the same answer
    bare.call(url, "POST", "/v1/enrol", page.enrolment(link, name="somebody-else"))  # a link works once
    challenge = page.challenge()
    bare.call(url, "POST", "/v1/session", {**page.session_body(challenge), "extra": 1})
    answer = bare.call(url, "POST", "/v1/session", page.session_body(challenge))
    page.token = answer.json["token"]
    bare.call(url, "POST", "/v1/session", page.session_body(challenge))  # a challenge works once


def _train(page: bare.Party, run: str, since: int, operate: Callable[[str], None]) -> dict[str, Any]:
    """Answer one round, not without detours."""
    work = page.work(run, since, 20).json
    model = f"/v1/blobs/{work['model']}"
    page.call("GET", model, headers={"Range": "bytes=0-99"})
    page.call("GET", model, headers={"Range": "bytes=100-"})
    page.call("GET", model, headers={"Range": "bytes=999999-"})
    page.call("GET", model, headers={"If-None-Match": f'"{work["model"]}"'})
    page.call("GET", f"/v1/blobs/{'0' * 64}")
    _write(page, run, work["round"])
    leaves = {"params.w": np.float32([0.25, -0.5]), "params.b": np.float32(0.125), "state.batches": np.float32(2)}
    data = bare.file_of(leaves, {"loss": np.float32(4), "examples": np.float32(8)})
    update = bare.Update(page, run, work, data, CHUNK_BYTES)
    update.announce()
    update.put(0, bytes(CHUNK_BYTES))  # 422: corrupt
    update.put(0)
    update.commit()  # 409: incomplete
    update.announce()
    for number in range(1, len(update.chunks)):
        update.put(number)
    update.commit(update.word(round=99))  # 403: signed for another round
    operate("pause")  # so that the round stays open
    update.commit()
    update.commit()  # again is safe
    bare.Update(page, run, work, data + b" ", CHUNK_BYTES).announce()  # 409: other content is not
    operate("resume")
    return dict(work)


def _write(page: bare.Party, run: str, number: int) -> None:
    """Leave a signed message in a stage's mailbox and read it."""
    path = bare.messages_path(run, number, "keys")
    page.call("POST", path, bare.message(page, run, number, "keys", page.client, b"to myself"))
    page.call("POST", path, bare.message(page, run, number, "keys", page.client, b"forged", sender="c-somebody"))
    page.call("GET", f"{path}?since=0&wait=1")
