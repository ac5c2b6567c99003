"""Messages reach whom they are for, come from whom they say, and are few enough."""

import bare
import pytest
from scene import Round, Scene

MOST = 48 << 10


@pytest.fixture
def box(stage: Scene, round_: Round) -> str:
    return bare.messages_path(stage.key, round_.number, "keys")


def letter(stage: Scene, round_: Round, to: str, body: bytes, party: bare.Party | None = None) -> dict:
    return bare.message(party or stage.lyon, stage.key, round_.number, "keys", to, body)


def numbers(answer: bare.Answer) -> list[int]:
    return [message["number"] for message in answer.json["messages"]]


def test_a_message_reaches_its_recipient_and_nobody_else(stage: Scene, round_: Round, box: str, guest) -> None:
    third = guest()
    assert third.join(stage.run).status == 204
    to_nice = stage.lyon.call("POST", box, letter(stage, round_, stage.nice.client, b"for nice")).json["number"]
    to_all = stage.lyon.call("POST", box, letter(stage, round_, "all", b"for all")).json["number"]
    to_server = stage.lyon.call("POST", box, letter(stage, round_, "server", b"for the server")).json["number"]
    assert to_nice < to_all < to_server
    assert numbers(stage.nice.call("GET", box)) == [to_nice, to_all]
    assert numbers(third.call("GET", box)) == [to_all]
    assert to_nice not in numbers(stage.lyon.call("GET", box))
    got = stage.nice.call("GET", box).json["messages"][0]
    assert (got["from"], got["to"], got["body"]) == (stage.lyon.client, stage.nice.client, bare.encoded(b"for nice"))


@pytest.mark.parametrize("name", ["lyon", "nice"])
@pytest.mark.parametrize("field", ["run", "round", "stage", "sender", "to", "body"])
def test_a_message_signed_for_elsewhere_is_refused(
    stage: Scene, round_: Round, box: str, name: str, field: str
) -> None:
    party, other = (stage.lyon, stage.nice) if name == "lyon" else (stage.nice, stage.lyon)
    said = {
        "run": stage.key,
        "round": round_.number,
        "stage": "keys",
        "to": "all",
        "body": b"x",
        "sender": party.client,
    }
    false = {"run": "r-0", "round": round_.number + 1, "stage": "shares", "to": other.client, "body": b"y",
             "sender": other.client}  # fmt: skip
    signed = bare.message(party, **{**said, field: false[field]})
    answer = party.call("POST", box, {"to": "all", "body": bare.encoded(b"x"), "signature": signed["signature"]})
    assert (answer.status, answer.code) == (403, "signature")
    assert stage.nice.call("GET", box).json["messages"] == []


def test_nobody_sends_in_the_name_of_another(stage: Scene, round_: Round, box: str) -> None:
    theirs = letter(stage, round_, "all", b"x")
    assert stage.nice.call("POST", box, theirs).code == "signature"


@pytest.mark.parametrize("to", ["c-0000000000000000", "", "lyon", "c-" + "f" * 60_000, "server\n", "ALL", "%"])
def test_a_recipient_outside_the_run_is_refused(stage: Scene, round_: Round, box: str, to: str) -> None:
    answer = stage.lyon.call("POST", box, letter(stage, round_, to, b"x"))
    assert (answer.status, answer.code) == (404, "unknown")


def test_a_client_of_no_run_is_no_recipient(stage: Scene, round_: Round, box: str, guest) -> None:
    assert stage.lyon.call("POST", box, letter(stage, round_, guest().client, b"x")).status == 404


def test_a_message_has_at_most_48_kib(stage: Scene, round_: Round, box: str) -> None:
    assert stage.lyon.call("POST", box, letter(stage, round_, "all", bytes(MOST))).status == 200
    for size in (MOST + 1, 2 << 20):
        answer = stage.lyon.call("POST", box, letter(stage, round_, "all", bytes(size)))
        assert answer.status in (413, 0)


def test_a_client_leaves_64_messages_in_a_stage_and_so_may_others(stage: Scene, round_: Round, box: str) -> None:
    sent = [letter(stage, round_, "all", b"%d" % i) for i in range(65)]
    answers = [stage.lyon.call("POST", box, one) for one in sent]
    assert bare.statuses(answers) == [200] * 64 + [429]
    assert "retry-after" in answers[-1].headers
    assert stage.lyon.call("POST", box, sent[0]).json == answers[0].json, "the same again is the same"
    assert stage.nice.call("POST", box, letter(stage, round_, "all", b"x", stage.nice)).status == 200
    elsewhere = bare.messages_path(stage.key, round_.number, "shares")
    other = bare.message(stage.lyon, stage.key, round_.number, "shares", "all", b"x")
    assert stage.lyon.call("POST", elsewhere, other).status == 200


@pytest.mark.slow
def test_stages_without_end_do_not_fill_the_disk(stage: Scene, round_: Round) -> None:
    taken = 0
    for i in range(20):
        for j in range(64):
            place = bare.messages_path(stage.key, round_.number, f"s{i}")
            body = bare.message(stage.lyon, stage.key, round_.number, f"s{i}", "all", b"%d" % j)
            answer = stage.lyon.call("POST", place, body)
            assert answer.status in (200, 429)
            taken += answer.status == 200
    assert taken <= 64 * 16


@pytest.mark.parametrize("round_of", [-1, 0, +1, 10**6, 10**400])
def test_a_round_that_is_not_open_has_no_mailbox(stage: Scene, round_: Round, round_of: int) -> None:
    number = round_.number + round_of if round_of else 0
    path = bare.messages_path(stage.key, number, "keys")
    letter_ = bare.message(stage.lyon, stage.key, number, "keys", "all", b"x")
    for answer in (stage.lyon.call("POST", path, letter_), stage.lyon.call("GET", path)):
        assert answer.status in (404, 410)


@pytest.mark.parametrize("name", ["a" * 65, "a%2Fb", "..", "%00", "a%0Ab", "%C3%A9", "a_b", "%20"])
def test_a_stage_that_has_no_good_name_is_refused(stage: Scene, round_: Round, name: str) -> None:
    path = bare.messages_path(stage.key, round_.number, name)
    letter_ = bare.message(stage.lyon, stage.key, round_.number, "keys", "all", b"x")
    for answer in (stage.lyon.call("POST", path, letter_), stage.lyon.call("GET", path)):
        assert answer.status in (404, 422)


def test_messages_go_with_their_round(stage: Scene, round_: Round, box: str) -> None:
    assert stage.lyon.call("POST", box, letter(stage, round_, "all", b"x")).status == 200
    following = stage.fresh_round()
    assert stage.nice.call("GET", bare.messages_path(stage.key, following.number, "keys")).json["messages"] == []
    assert stage.nice.call("GET", box).code == "over"


@pytest.mark.parametrize("body", ["", "*", "é", "A", "AAAA=", "QQ\n"])
def test_a_body_that_is_no_base64url_is_refused_or_signed(stage: Scene, round_: Round, box: str, body: str) -> None:
    said = letter(stage, round_, "all", b"x") | {"body": body}
    assert stage.lyon.call("POST", box, said).status in (403, 422)
