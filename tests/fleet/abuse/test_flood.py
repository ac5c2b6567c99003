"""Whoever calls too often without a session is told to wait, and nobody else notices."""

import http.client
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from scene import Scene

from koinon.fleet.service.strangers import BURST, PER_SECOND


def flood(scene: Scene, headers: dict[str, str]) -> tuple[list[int], str | None]:
    """Call with wrong tokens until it is answered with 429; return all statuses and the last Retry-After."""
    place = urlsplit(scene.fleet.url)
    line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    began, statuses, retry = time.monotonic(), [], None
    while 429 not in statuses and len(statuses) < 2 * BURST:
        line.request("GET", "/v1/runs", headers={"Authorization": f"Bearer {len(statuses)}", **headers})
        answer = line.getresponse()
        answer.read()
        statuses.append(answer.status)
        retry = answer.getheader("Retry-After")
    line.close()
    assert BURST <= len(statuses) <= BURST + PER_SECOND * (time.monotonic() - began) + 1
    return statuses, retry


def test_a_flood_of_wrong_tokens_is_turned_away_and_honest_parties_are_not(own_stage: Scene) -> None:
    statuses, retry = flood(own_stage, {"X-Forwarded-For": "192.0.2.1"})  # believed of nobody
    assert set(statuses) == {401, 429}
    assert retry is not None and int(retry) >= 1
    assert own_stage.lyon.call("GET", "/v1/runs").status == 200, "a session is not a stranger"
    stranger = replace(own_stage.lyon, token="wrong")
    assert stranger.call("GET", "/v1/runs").status == 429
    assert own_stage.goes_on()


def test_behind_a_proxy_each_caller_is_counted_by_itself(stages: Callable[..., Scene]) -> None:
    scene = stages("--trusted-proxy", "127.0.0.1")
    flood(scene, {"X-Forwarded-For": "192.0.2.1"})
    stranger = replace(scene.lyon, token="wrong")
    assert stranger.call("GET", "/v1/runs").status == 401
    assert stranger.call("GET", "/v1/runs", headers={"X-Forwarded-For": "192.0.2.1"}).status == 429
