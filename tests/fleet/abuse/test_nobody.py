"""Who has no right to a call learns nothing from it and changes nothing by it."""

import bare
import pytest
from scene import Round, Scene

CLIENTS_CALLS = [
    ("GET", "/v1/runs"),
    ("GET", "/v1/runs/{run}"),
    ("POST", "/v1/runs/{run}/join"),
    ("GET", "/v1/runs/{run}/work"),
    ("GET", "/v1/blobs/{model}"),
    ("POST", "/v1/runs/{run}/rounds/{round}/train/update"),
    ("PUT", "/v1/runs/{run}/rounds/{round}/train/update/0"),
    ("POST", "/v1/runs/{run}/rounds/{round}/train/commit"),
    ("POST", "/v1/runs/{run}/rounds/{round}/train/failure"),
    ("POST", "/v1/runs/{run}/rounds/{round}/stages/keys/messages"),
    ("GET", "/v1/runs/{run}/rounds/{round}/stages/keys/messages"),
    ("GET", "/v1/runs/{run}/receipts"),
    ("GET", "/v1/runs/{run}/clients"),
]
OPERATORS_CALLS = [
    ("GET", "/v1/admin/status"),
    ("GET", "/v1/admin/events"),
    ("POST", "/v1/admin/invitations"),
    ("POST", "/v1/admin/clients/{client}/revoke"),
    ("POST", "/v1/admin/runs/{run}/pause"),
    ("POST", "/v1/admin/runs/{run}/resume"),
    ("POST", "/v1/admin/runs/{run}/cancel"),
    ("GET", "/metrics"),
]
PROBES = [("POST", "/v1/probe"), ("GET", "/v1/probe/bytes?count=8"), ("PUT", "/v1/probe/bytes")]


def filled(path: str, stage: Scene, round_: Round) -> str:
    return path.format(run=stage.key, round=round_.number, model=round_.lyon.work["model"], client=stage.lyon.client)


HEADERS = (None, "", "Bearer", "Bearer ", "Bearer x", "Basic eDp4", "Invitation x", "Bearer \xe9", "bearer " * 50)


@pytest.mark.parametrize(("method", "path"), CLIENTS_CALLS + OPERATORS_CALLS + PROBES)
def test_without_a_right_every_call_is_401(stage: Scene, round_: Round, method: str, path: str) -> None:
    before = stage.state()
    for header in HEADERS:
        headers = {} if header is None else {"Authorization": header}
        body = None if method == "GET" else {}
        answer = bare.call(stage.fleet.url, method, filled(path, stage, round_), body, None, headers)
        assert (answer.status, set(answer.json)) == (401, {"error"})
    after = stage.state()
    assert all(after[name] == before[name] for name in ("state", "round", "history"))
    assert [client["standing"] for client in after["clients"] if client["name"] in ("lyon", "nice")] == ["asked"] * 2


@pytest.mark.parametrize(("method", "path"), OPERATORS_CALLS)
def test_a_client_is_no_operator(stage: Scene, round_: Round, method: str, path: str) -> None:
    answer = stage.lyon.call(method, filled(path, stage, round_), None if method == "GET" else {})
    assert (answer.status, answer.code) == (401, "operator")


@pytest.mark.parametrize(("method", "path"), CLIENTS_CALLS)
def test_neither_the_operator_nor_an_invited_party_is_a_client(
    stage: Scene, round_: Round, method: str, path: str
) -> None:
    operator = stage.operator
    invited = stage.fleet.invite().rpartition("token=")[2]
    for header in (f"Bearer {operator}", f"Bearer {invited}", f"Invitation {invited}"):
        body = None if method == "GET" else {}
        answer = bare.call(
            stage.fleet.url, method, filled(path, stage, round_), body, None, {"Authorization": header}
        )  # fmt: skip
        assert answer.status == 401


def test_what_anybody_may_call_tells_nothing_of_the_run(stage: Scene) -> None:
    for path in ("/healthz", "/v1/ca", "/", "/join"):
        answer = bare.call(stage.fleet.url, "GET", path)
        assert answer.status in (200, 404)
        for secret in (stage.key, stage.run["app"], stage.lyon.client, stage.lyon.name):
            assert secret.encode() not in answer.body
    assert b"koinon join 'LINK'" in bare.call(stage.fleet.url, "GET", "/join").body, "for who opens a link in a browser"


def test_a_client_that_has_not_joined_reads_nothing_of_the_run(stage: Scene, round_: Round, guest) -> None:
    party = guest()
    model = round_.lyon.work["model"]
    assert party.call("GET", f"/v1/blobs/{model}").status == 404
    for path in ("work", "receipts", "clients"):
        answer = party.call("GET", f"/v1/runs/{stage.key}/{path}")
        assert (answer.status, answer.code) == (403, "not_joined")
    for path in ("train/update", "train/commit", "train/failure"):
        body = {
            "train/update": {"bytes": 1, "chunk_bytes": 4 << 20, "digests": ["0" * 64]},
            "train/commit": {"root": "0" * 64, "weight": 1, "model": model, "signature": bare.encoded(bytes(64))},
            "train/failure": {"reason": "x"},
        }[path]
        answer = party.call("POST", f"/v1/runs/{stage.key}/rounds/{round_.number}/{path}", body)
        assert (answer.status, answer.code) == (403, "not_joined")
    assert party.call("PUT", f"{round_.lyon.path}/update/0", b"x").code == "not_joined"
    box = bare.messages_path(stage.key, round_.number, "keys")
    assert party.call("GET", box).code == "not_joined"
    assert (
        party.call("POST", box, bare.message(party, stage.key, round_.number, "keys", "all", b"x")).code == "not_joined"
    )


def test_a_client_with_another_app_does_not_join(stage: Scene, guest) -> None:
    party = guest()
    answer = party.join(stage.run, app="0" * 64)
    assert (answer.status, answer.code) == (409, "other_app")
    assert party.work(stage.key).code == "not_joined"


@pytest.mark.parametrize(
    "name",
    ["..%2F..%2Fadmin.json", "%2e%2e/%2e%2e/admin.json", "../../../admin.json", "..%2f" * 8 + "etc%2fpasswd", "%00",
     "A" * 64, "0" * 63, "0" * 65, "%C3%A9" * 32, "0" * 64 + ".safetensors", "..%5c..%5cadmin.json"],
)  # fmt: skip
def test_no_name_of_a_blob_leads_out_of_the_blobs(stage: Scene, round_: Round, name: str) -> None:
    answer = stage.lyon.call("GET", f"/v1/blobs/{name}")
    assert answer.status == 404
    assert stage.operator.encode() not in answer.body


@pytest.mark.parametrize("run", ["..", "%2e%2e", "r-0", "..%2f..", "%00", "r" * 5000])
def test_no_name_of_a_run_leads_anywhere(stage: Scene, run: str) -> None:
    for path in ("", "/work", "/receipts", "/clients", "/rounds/1/stages/a/messages"):
        assert stage.lyon.call("GET", f"/v1/runs/{run}{path}").status == 404
