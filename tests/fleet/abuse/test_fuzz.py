"""Requests that nobody would write, against a real coordinator: only documented answers, never an error of its own.

``docs/openapi.json`` says which answers a call may give. The fuzzer here draws from it; schemathesis, where it is
installed, does so in its own way.
"""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bare
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene import Round, Scene

OPENAPI = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
CALLS = [
    (method.upper(), path, operation) for path, own in OPENAPI["paths"].items() for method, operation in own.items()
]
SLOW = {"/v1/admin/events"}  # answers without end
ENDS_IT = {"/v1/admin/runs/{run}/{change}", "/v1/admin/clients/{client}/revoke"}
ALWAYS = {400, 404, 405}  # what is not HTTP, or no call at all
text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "..", "%", "\0", "0", "-1", "1e9", "9" * 5000, "null", "é", "\U0001f600", "../" * 9, "'--", "{}"]
    ),
)
number = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(), st.sampled_from([2**31, 2**53, 2**63, 2**64, 10**400])
)
wild = text.map(lambda value: quote(value, safe="")[:6000] or "x")
odd = st.recursive(
    st.one_of(st.none(), st.booleans(), number, text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=8,
)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def near(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that are right, almost right, or wrong."""
    schema = resolved(schema)
    if "enum" in schema:
        return st.one_of(st.sampled_from(schema["enum"]), odd)
    if "anyOf" in schema:
        return st.one_of(*map(near, schema["anyOf"]))
    right: st.SearchStrategy[Any] = {
        "string": st.one_of(st.sampled_from(["0" * 64, "a", "AAAA", "A" * 86, "A" * 43]), text),
        "integer": st.one_of(st.integers(0, 9), st.just(4 << 20), number),
        "number": number,
        "boolean": st.booleans(),
        "null": st.none(),
        "array": st.lists(near(schema["items"]), max_size=3) if "items" in schema else st.just([]),
        "object": st.fixed_dictionaries({name: near(own) for name, own in schema.get("properties", {}).items()}),
    }[schema["type"]]
    return st.one_of(right, right, right, odd)


bodies = st.one_of(
    odd.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.sampled_from(
        [b"", b"[" * 50_000, b'{"a":' * 9_000, b"\x1f\x8b\x08" + bytes(50), b'{"client":"\\ud800"}', b" " * 70_000]
    ),
)


@st.composite
def requests(draw: st.DrawFn, known: dict[str, str], tokens: list[str | None]) -> dict[str, Any]:
    """One request of a call, with some of its parts as they should be."""
    method, path, operation = draw(st.sampled_from([call for call in CALLS if call[1] not in SLOW | ENDS_IT]))
    at_home = draw(st.sampled_from([True, True, True, False]))
    filled = re.sub(r"{(\w+)}", lambda found: known[found[1]] if at_home else draw(wild), path)
    query = "&".join(
        f"{item['name']}={quote(str(draw(near(item['schema']))), safe='')[:6000]}"
        for item in operation.get("parameters", [])
        if item["in"] == "query" and item["name"] != "wait" and draw(st.booleans())
    )
    content = operation.get("requestBody", {}).get("content", {})
    body: bytes | None = draw(bodies) if content or draw(st.booleans()) else None
    if "application/json" in content and draw(st.booleans()):
        body = json.dumps(draw(near(content["application/json"]["schema"]))).encode()
    own = draw(st.dictionaries(
        st.sampled_from(["Range", "If-None-Match", "Content-Type", "Accept", "Origin", "Expect-Not", "Cookie"]),
        text.map(lambda value: quote(value)[:2000]), max_size=2,
    ))  # fmt: skip
    return {
        "operation": operation,
        "method": method,
        "path": f"{filled}?{query}" if query else filled,
        "body": body,
        "token": draw(st.sampled_from(tokens)),
        "headers": own,
    }


def judged(answer: bare.Answer, request: dict[str, Any]) -> None:
    """Fail unless an answer is one that its call may give, in the form of the protocol."""
    shown = {name: repr(value)[:300] for name, value in request.items() if name != "operation"}
    said = (answer.status, answer.body[:500], shown)
    allowed = {int(status) for status in request["operation"]["responses"]} | ALWAYS
    assert answer.status in allowed and answer.status != 500 or answer.status == 0, said
    if answer.status >= 400 and answer.headers.get("content-type") == "application/json":
        assert answer.json["error"].keys() == {"code", "message"}, said
    elif answer.status >= 400:
        assert answer.status == 400 and b"Invalid HTTP" in answer.body, said
    assert answer.headers.get("retry-after") or answer.status not in (429, 503), said


@pytest.mark.parametrize("examples", [150, pytest.param(4000, marks=pytest.mark.slow)])
def test_every_answer_is_a_documented_one(stage: Scene, round_: Round, guest, examples: int) -> None:
    party = guest()
    assert party.join(stage.run).status == 204
    known = {
        "run": stage.key,
        "round": str(round_.number),
        "purpose": "train",
        "stage": "keys",
        "sha256": str(round_.lyon.work["model"]),
        "chunk": "0",
        "client": party.client,
        "change": "resume",
    }

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(requests(known, [stage.lyon.token, stage.lyon.token, party.token, None, stage.operator, "x"]))
    def fuzz(request: dict[str, Any]) -> None:
        began = time.monotonic()
        answer = bare.call(
            stage.fleet.url, request["method"], request["path"], request["body"], request["token"], request["headers"]
        )  # fmt: skip
        judged(answer, request)
        assert time.monotonic() - began < 10

    fuzz()
    assert round_.lyon.send().status == 200, "the round goes on after all that"
    assert "Traceback" not in stage.fleet.coordinator.said()


def schemathesis() -> str:
    """Return where schemathesis is, or skip."""
    found = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if not found:
        pytest.skip("schemathesis is not installed (pip install schemathesis in an environment of its own)")
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["nobody", "client", "operator"])
def test_schemathesis_finds_no_undocumented_answer(own_stage: Scene, tmp_path: Path, who: str) -> None:
    tool, stage = schemathesis(), own_stage
    round_ = stage.fresh_round()
    known = {"run": stage.key, "round": round_.number, "sha256": round_.lyon.work["model"], "chunk": 0, "client": "c-0"}
    description = json.loads(json.dumps(OPENAPI))
    for operations in description["paths"].values():
        for operation in operations.values():
            for item in operation.get("parameters", []):
                if item["name"] in known:
                    item["schema"] = {"anyOf": [{"const": known[item["name"]]}, item["schema"]]}
                if item["name"] == "wait":
                    item["schema"] = {"const": 0}
    (tmp_path / "openapi.json").write_text(json.dumps(description))
    token = {"nobody": "x", "client": stage.lyon.token, "operator": stage.operator}[who]
    line = [
        tool, "run", "openapi.json", "--url", stage.fleet.url, "--header", f"Authorization: Bearer {token}",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--exclude-path", "/v1/admin/events", "--exclude-path", "/v1/admin/runs/{run}/{change}",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--seed", "7", "--request-timeout", "10",
        "--workers", "1", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    print(done.stdout[-6000:], done.stderr[-2000:])
    assert done.returncode == 0
    assert "Traceback" not in stage.fleet.coordinator.said()
