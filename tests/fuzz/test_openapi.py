"""docs/openapi.json describes the calls that there are, and the fields that they take."""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import pytest

from koinon.fleet.coordinator import mailbox
from koinon.fleet.service import client_calls, metrics_page, operator_calls, page_calls, probe
from koinon.fleet.service.house import House

OPENAPI = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
NOBODY = cast(House, None)
BODIES = {
    "Enrolment": client_calls.Enrolment,
    "Challenged": client_calls.Challenged,
    "Opened": client_calls.Opened,
    "Joined": client_calls.Joined,
    "Announced": client_calls.Announced,
    "Word": client_calls.Word,
    "Failure": client_calls.Failure,
    "Letter": mailbox.Letter,
    "Invited": operator_calls.Invited,
}


def calls() -> set[tuple[str, str]]:
    """Return method and path of every route."""

    def nothing() -> Any: ...

    routes = [
        *client_calls.routes(NOBODY),
        *operator_calls.routes(NOBODY, None, nothing),
        *metrics_page.routes(NOBODY, nothing),
        *page_calls.routes(),
        *probe.routes(cast(Any, nothing), nothing),
    ]
    found = {(method.lower(), route.path) for route in routes for method in route.methods or ()}
    return {call for call in found if call[0] != "head"} | {("get", "/healthz"), ("get", "/v1/ca")}


def test_every_call_is_described_and_none_besides() -> None:
    described = {(method, path) for path, methods in OPENAPI["paths"].items() for method in methods}
    assert described == calls()


@pytest.mark.parametrize("name", BODIES)
def test_a_body_has_the_fields_that_the_call_takes(name: str) -> None:
    described = OPENAPI["components"]["schemas"][name]
    fields = [field.name for field in dataclasses.fields(BODIES[name])]
    assert list(described["properties"]) == described["required"] == fields
    assert described["additionalProperties"] is False


def test_every_body_is_described() -> None:
    taken = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for methods in OPENAPI["paths"].values()
        for operation in methods.values()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert taken == BODIES.keys()


def test_whoever_needs_a_right_is_told_so() -> None:
    for path, methods in OPENAPI["paths"].items():
        for operation in methods.values():
            assert bool(operation["security"]) == ("401" in operation["responses"]), path
