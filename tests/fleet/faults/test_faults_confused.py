"""A coordinator that is busy, has forgotten something, or hides behind something that answers nonsense ends no participant."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.faults.proxy import FaultyProxy, Strange
from fleet.processes import Fleet, through

CHANGES = ("stop.rounds=3",)
PAGE = "<!doctype html><title>Maintenance</title>"
LARGE = {"BALLAST": "500000"}  # 2 MB
CHUNKED = ("--chunk-bytes", str(1 << 20))
ENDS_S = 60


def says(part: str, status: int, code: str, *, after: int | None = None, relayed: bool = False) -> Strange:
    """Return a refusal of the protocol."""
    body = json.dumps({"error": {"code": code, "message": f"A test says {code}."}})
    return Strange(part, status, body, {} if after is None else {"Retry-After": str(after)}, relayed)


STRANGE = {
    "has forgotten its members": [says("/work?", 403, "not_joined")],
    "does not know the run yet": [says("/work?", 404, "unknown"), says("/receipts", 404, "unknown")],
    "has forgotten its sessions, again and again": [says("/v1/runs/", 401, "session")] * 4,
    "voids challenges": [says("/v1/session", 403, "challenge")] * 3,
    "is busy": [
        says("/v1/session", 429, "rate", after=1),
        says("/v1/challenge", 503, "ending"),
        says("/update?", 429, "rate", after=1),
        says("/work?", 503, "store", after=1),
        Strange("/blobs/", 500, "Internal Server Error"),
    ],
    "is behind what answers nonsense": [
        Strange("/work?", 200, PAGE),
        Strange("/work?", 302, PAGE, {"Location": "http://127.0.0.1:9/"}),
        Strange("/update?", 403, PAGE),
        Strange("/blobs/", 404, PAGE),
        Strange("/receipts", 400, "Invalid HTTP request received."),
        Strange("/v1/challenge", 530, PAGE),
    ],
    "has lost the model": [says("/blobs/", 404, "unknown")],
    "has lost the upload": [says("/update?", 404, "unknown")] * 3,
    "has it already": [says("/train/update?", 409, "conflict", relayed=True)],
    "asks for the round of another model": [says("/train/update?", 403, "signature")],
    "no longer asks": [says("/train/update?", 403, "not_asked"), says("/failure", 403, "not_asked", relayed=True)],
}  # fmt: skip


QUICK = ["is busy", "is behind what answers nonsense", "has lost the upload", "has it already"]
SEVERAL = [answer for name in QUICK for answer in STRANGE[name]]


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(SEVERAL, id="does several of these"),
        *(pytest.param(found, id=name, marks=pytest.mark.slow) for name, found in STRANGE.items()),
    ],
)
def test_a_participant_outlives_a_coordinator_that(
    strange: list[Strange], app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    with Fleet(tmp_path, app, changes=CHANGES) as fleet, FaultyProxy(fleet.port, strange=strange) as proxy:
        fleet.serve()
        lyon = fleet.join("lyon", link=through(fleet.invite("lyon"), proxy.port))
        for name in NAMES[1:]:
            fleet.join(name)
        assert lyon.wait(ENDS_S) == 0, fleet.story()
        assert fleet.coordinator.wait(ENDS_S) == 0, fleet.story()
    assert not proxy.strange, "not everything was said"
    assert undisturbed(*CHANGES) in lyon.said()


def test_an_upload_that_is_no_longer_known_is_announced_again(
    app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    lost = [says(part, 404, "unknown") for part in ("/update/1", "/commit")]
    with (
        Fleet(tmp_path, app, changes=CHANGES, serve=CHUNKED, environment=LARGE) as fleet,
        FaultyProxy(fleet.port, strange=lost) as proxy,
    ):
        fleet.serve()
        lyon = fleet.join("lyon", link=through(fleet.invite("lyon"), proxy.port))
        for name in NAMES[1:]:
            fleet.join(name)
        assert lyon.wait(ENDS_S) == 0, fleet.story()
    assert not proxy.strange
    assert undisturbed(*CHANGES, **LARGE) in lyon.said()


@pytest.mark.parametrize(("status", "code"), [(403, "revoked"), (409, "superseded")])
def test_a_decision_ends_it_at_once(status: int, code: str, app: Path, tmp_path: Path) -> None:
    with (
        Fleet(tmp_path, app, changes=CHANGES) as fleet,
        FaultyProxy(fleet.port, strange=[says("/work?", status, code)]) as proxy,
    ):
        fleet.serve()
        lyon = fleet.join("lyon", link=through(fleet.invite("lyon"), proxy.port))
        assert lyon.wait(ENDS_S) != 0
        assert f"A test says {code}." in lyon.said()
