"""One party, one key, one session: what others can do with a token, a challenge or a name that is not theirs."""

import threading
from pathlib import Path

import bare
import pytest
from scene import Round, Scene

KINDS = ("ed25519", "p256")


def party(stage: Scene, name: str, kind: str = "ed25519") -> bare.Party:
    return bare.Party(stage.fleet.url, name, bare.Key(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_join_link_works_once_and_again_for_the_same_party_only(stage: Scene, guest, kind: str) -> None:
    link = stage.fleet.invite()
    first = party(stage, f"once-{kind}", kind)
    answer = first.enrol(link)
    assert answer.status == 200
    assert first.enrol(link).json == answer.json
    for other in (party(stage, first.name, kind), party(stage, "another", kind)):
        refused = other.enrol(link)
        assert (refused.status, refused.code) == (403, "invitation")
    stage.revoke(first)
    assert first.enrol(link).status == 403
    assert first.enrol(stage.fleet.invite()).status == 200, "its name is free again"
    stage.revoke(first)


def test_a_join_link_for_one_party_is_of_no_use_to_another(stage: Scene) -> None:
    answer = party(stage, "mallory").enrol(stage.fleet.invite("alice"))
    assert (answer.status, answer.code) == (403, "invitation")


def test_a_name_that_is_taken_is_refused_and_the_link_stays_good(stage: Scene) -> None:
    link = stage.fleet.invite()
    answer = party(stage, "lyon").enrol(link)
    assert (answer.status, answer.code) == (409, "name")
    free = party(stage, "free")
    assert free.enrol(link).status == 200
    stage.revoke(free)


def test_of_many_who_use_one_link_at_once_one_gets_in(stage: Scene) -> None:
    link = stage.fleet.invite()
    parties = [party(stage, f"rush-{i}") for i in range(8)]
    answers: list[bare.Answer] = []
    threads = [threading.Thread(target=lambda p=p: answers.append(p.enrol(link))) for p in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(bare.statuses(answers)) == [200] + [403] * 7
    winner = next(p for p in parties if p.client)
    stage.revoke(winner)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["token", "name", "key", "kind", "signature"])
def test_an_enrolment_that_was_changed_on_the_way_is_refused(stage: Scene, kind: str, change: str) -> None:
    link = stage.fleet.invite()
    one, other = party(stage, "changed", kind), party(stage, "changed", kind)
    body = one.enrolment(link)
    body[change] = {
        "token": stage.fleet.invite().rpartition("token=")[2],
        "name": "mallory",
        "key": bare.encoded(other.key.public),
        "kind": KINDS[1 - KINDS.index(kind)],
        "signature": other.enrolment(link)["signature"],
    }[change]
    answer = bare.call(stage.fleet.url, "POST", "/v1/enrol", body)
    assert answer.status in (403, 422)
    assert one.enrol(link).status == 200, "and the link was not used up"
    stage.revoke(one)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        bytes(31),
        bytes(33),
        bytes(65),
        b"\x04" + bytes(64),
        b"\x02" + bytes(32),
        b"\x04" + b"\xff" * 64,
        bytes(1000),
    ],
)
@pytest.mark.parametrize("kind", [*KINDS, "rsa", "", "ED25519"])
def test_what_is_no_key_is_refused(stage: Scene, kind: str, key: bytes) -> None:
    body = party(stage, "keyless").enrolment(stage.fleet.invite(), kind=kind, key=bare.encoded(key))
    assert bare.call(stage.fleet.url, "POST", "/v1/enrol", body).status in (403, 422)


@pytest.mark.parametrize("kind", KINDS)
def test_a_challenge_opens_one_session(stage: Scene, guest, kind: str) -> None:
    one = guest(kind)
    body = one.session_body(one.challenge())
    assert bare.call(stage.fleet.url, "POST", "/v1/session", body).status == 200
    replayed = bare.call(stage.fleet.url, "POST", "/v1/session", body)
    assert (replayed.status, replayed.code) == (403, "challenge")


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_opens_a_session_for_another(stage: Scene, guest, kind: str) -> None:
    one, other = guest(kind), guest(kind)
    challenge = one.challenge()
    forged = other.session_body(challenge) | {"client": one.client}
    assert bare.call(stage.fleet.url, "POST", "/v1/session", forged).code == "signature"
    assert bare.call(stage.fleet.url, "POST", "/v1/session", other.session_body(challenge)).code == "challenge"
    assert one.call("GET", "/v1/runs").status == 200, "and its own session goes on"


def test_of_two_processes_with_one_key_the_older_is_told_to_stop(stage: Scene, guest) -> None:
    newer = guest()
    older = bare.Party(newer.url, newer.name, newer.key, newer.client, newer.token)
    assert newer.begin().status == 200
    answer = older.call("GET", "/v1/runs")
    assert (answer.status, answer.code) == (409, "superseded")
    assert newer.call("GET", "/v1/runs").status == 200


def test_a_revoked_client_is_out_at_once(stage: Scene, round_: Round, guest) -> None:
    one = guest()
    assert one.join(stage.run).status == 204
    parked: list[bare.Answer] = []
    serial = one.work(stage.key).json["serial"]
    waiter = threading.Thread(target=lambda: parked.append(one.work(stage.key, serial, 30)))
    waiter.start()
    stage.revoke(one)
    waiter.join(10)
    assert not waiter.is_alive(), "its long poll ends"
    assert parked[0].status in (401, 403)
    for method, path in (("GET", "/v1/runs"), ("GET", f"/v1/blobs/{round_.lyon.work['model']}")):
        assert one.call(method, path).status == 401
    answer = bare.call(stage.fleet.url, "POST", "/v1/session", one.session_body(one.challenge()))
    assert (answer.status, answer.code) == (403, "revoked")


def test_a_revoked_client_that_reads_its_post_gets_none(stage: Scene, round_: Round, guest) -> None:
    one = guest()
    assert one.join(stage.run).status == 204
    box = bare.messages_path(stage.key, round_.number, "late")
    parked: list[bare.Answer] = []
    waiter = threading.Thread(target=lambda: parked.append(one.call("GET", f"{box}?since=0&wait=15")))
    waiter.start()
    waiter.join(0.5)
    stage.revoke(one)
    letter = bare.message(stage.lyon, stage.key, round_.number, "late", "all", b"for members only")
    assert stage.lyon.call("POST", box, letter).status == 200
    waiter.join(20)
    assert not waiter.is_alive()
    assert parked[0].status in (401, 403)


def test_a_client_that_is_revoked_in_a_round_does_not_hold_it_up(stage: Scene, round_: Round, guest) -> None:
    gone = guest()
    assert gone.join(stage.run).status == 204
    both = stage.fresh_round()
    update = stage.update(gone, stage.asked(gone))
    assert bare.statuses([update.announce(), update.put(0)]) == [200, 204]
    stage.revoke(gone)
    assert update.commit().status == 401
    assert stage.fresh_round().number == both.number + 1
    assert "revoked" in stage.row(both.number)["lost"][gone.name]


def test_no_token_lies_readable_in_the_coordinators_folder(stage: Scene, guest) -> None:
    one = guest()
    unused = stage.fleet.invite()
    secrets = [unused.rpartition("token=")[2], one.token, stage.lyon.token, one.challenge()]
    files = [path for path in Path(stage.fleet.store).rglob("*") if path.is_file()]
    kept = {path: path.read_bytes() for path in files}
    assert any(bare.sha256(secrets[0].encode()).encode() in data for data in kept.values()), "the right files"
    for secret in secrets:
        assert not [path for path, data in kept.items() if secret.encode() in data]
    assert not stage.fleet.store.stat().st_mode & 0o077, "nobody else on the machine looks in"
