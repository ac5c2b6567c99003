"""What a client may send for a round: its own update, once, as it signed it, in the shape and size that were asked for."""

import threading
from dataclasses import replace
from functools import partial

import bare
import numpy as np
import pytest
from scene import Round, Scene, good_leaves

from koinon.exact import LARGEST_WEIGHT

KINDS = ("lyon", "nice")  # Ed25519, P-256
METRICS = {"loss": np.float32(1), "examples": np.float32(8)}


def sent(update: bare.Update) -> bare.Update:
    """Bring every chunk of an update, without committing it."""
    assert update.announce().status == 200
    assert all(update.put(i).status == 204 for i in range(len(update.chunks)))
    return update


def other(round_: Round, name: str) -> bare.Update:
    return round_.nice if name == "lyon" else round_.lyon


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("field", ["run", "round", "purpose", "client", "model", "root", "bytes", "weight"])
def test_a_signature_over_anything_else_is_refused(stage: Scene, round_: Round, name: str, field: str) -> None:
    update = sent(getattr(round_, name))
    elsewhere = {
        "run": "r-0000000000000000",
        "round": round_.number + 1,
        "purpose": "evaluate",
        "client": other(round_, name).party.client,
        "model": "0" * 64,
        "root": "0" * 64,
        "bytes": len(update.data) + 1,
        "weight": update.weight + 1,
    }
    answer = update.commit(update.word(**{field: elsewhere[field]}))
    assert (answer.status, answer.code) == (403, "signature")
    assert stage.state()["open"]["arrived"] == 0
    assert update.commit().json == {"duplicate": False}, "and the right one still counts"


@pytest.mark.parametrize("name", KINDS)
def test_a_signature_by_another_key_is_refused(stage: Scene, round_: Round, name: str) -> None:
    update = sent(getattr(round_, name))
    for key in (other(round_, name).party.key, bare.Key("ed25519"), bare.Key("p256")):
        assert update.commit(update.word(key)).code == "signature"
    for signature in (b"", bytes(64), b"\xff" * 64, bytes(63), bytes(65), b"\x30\x06\x02\x01\x01\x02\x01\x01"):
        answer = update.commit({**update.word(), "signature": bare.encoded(signature)})
        assert (answer.status, answer.code) == (403, "signature")
    for text in ("", "*", "é", "=" * 86, "A" * 60_000):
        assert update.commit({**update.word(), "signature": text}).status in (403, 422)


@pytest.mark.parametrize("name", KINDS)
def test_what_stands_in_the_commit_is_what_was_signed(stage: Scene, round_: Round, name: str) -> None:
    update = sent(getattr(round_, name))
    for lie in ({"weight": 9}, {"model": "0" * 64}):
        answer = update.commit({**update.word(), **lie})
        assert (answer.status, answer.code) == (403, "signature")
    assert update.commit({**update.word(), "root": "0" * 64}).code == "incomplete"


@pytest.mark.parametrize("name", KINDS)
def test_an_update_is_not_replayed_into_the_next_round(stage: Scene, round_: Round, name: str) -> None:
    update = getattr(round_, name)
    old = update.word()
    following = stage.fresh_round()
    again = sent(getattr(following, name))
    assert again.commit(old).code == "signature"
    late = update.commit(old)
    assert (late.status, late.code) == (410, "over")
    for answer in (update.announce(), update.put(0)):
        assert (answer.status, answer.code) == (410, "over")


@pytest.mark.parametrize("name", KINDS)
def test_nobody_commits_with_the_word_of_another(stage: Scene, round_: Round, name: str) -> None:
    mine, theirs = sent(getattr(round_, name)), sent(other(round_, name))
    stolen = replace(theirs, party=mine.party)
    assert stolen.commit(theirs.word()).code == "signature"


def test_nobody_sees_or_touches_the_upload_of_another(stage: Scene, round_: Round) -> None:
    data = bare.file_of(good_leaves() | {"params.b": np.float32(0.5)}, METRICS)
    mine, theirs = sent(round_.lyon), stage.update(stage.nice, round_.nice.work, data=data)
    assert theirs.announce().json == {"have": []}, "the other's chunks are not there for me"
    assert mine.announce().json == {"have": [0]}
    assert theirs.put(0, data).status == 204
    assert mine.announce().json == {"have": [0]}
    assert mine.commit().status == 200
    assert stage.nice.work(stage.key).json["outcome"] == round_.nice.work["outcome"]


def test_a_commit_counts_once(stage: Scene, round_: Round) -> None:
    for update in (round_.lyon, round_.nice):
        sent(update)
    first = round_.lyon.commit()
    assert first.json == {"duplicate": False}
    assert round_.lyon.commit().json == {"duplicate": True}
    assert round_.lyon.announce().json == {"have": [0]}
    heavier = replace(round_.lyon, weight=9)
    assert heavier.commit().code == "conflict"
    changed = replace(round_.lyon, data=bare.file_of(good_leaves() | {"params.b": np.float32(3)}, METRICS))
    assert changed.announce().code == "conflict"
    assert changed.commit().code in ("conflict", "incomplete")
    assert round_.lyon.put(0, bytes(len(round_.lyon.data))).status in (204, 422)
    assert stage.state()["open"]["arrived"] == 1


def test_p256_signs_anew_each_time_and_it_is_still_the_same_commit(stage: Scene, round_: Round) -> None:
    update = sent(round_.nice)
    assert update.word()["signature"] != update.word()["signature"]
    assert update.commit().json == {"duplicate": False}
    assert update.commit().json == {"duplicate": True}


def test_of_many_commits_at_once_one_counts(stage: Scene, round_: Round) -> None:
    update = sent(round_.lyon)
    answers: list[bare.Answer] = []
    threads = [
        threading.Thread(target=lambda w=w: answers.append(replace(update, weight=w).commit()))
        for w in [8] * 4 + [9] * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    counted = [answer for answer in answers if answer.status == 200 and not answer.json["duplicate"]]
    assert len(counted) == 1
    assert sorted(bare.statuses(answers)) == [200] * 4 + [409] * 4
    assert stage.state()["open"]["arrived"] == 1


def test_a_chunk_that_was_checked_stays_as_it_was_checked(stage: Scene, round_: Round) -> None:
    update = sent(round_.lyon)
    poison = bare.file_of(good_leaves() | {"params.w": np.float32([np.nan, np.nan])}, METRICS)
    assert len(poison) == len(update.data)
    assert update.put(0, poison).code == "corrupt"
    assert update.commit().status == 200
    update.put(0, poison)
    stage.fresh_round()
    row = stage.row(round_.number)
    assert (row["refused"], row["cohort"]) == ({}, 2)
    assert stage.state()["state"] == "training"


def test_a_commit_before_every_chunk_is_there_says_which_are(stage: Scene, round_: Round) -> None:
    for update in (round_.lyon, round_.nice):
        answer = update.commit()
        assert (answer.status, answer.code) == (409, "incomplete")
        update.announce()
        answer = update.commit()
        assert (answer.status, answer.code, answer.json["have"]) == (409, "incomplete", [])


def test_chunks_before_an_announcement_or_beyond_it_are_refused(stage: Scene, round_: Round) -> None:
    assert round_.lyon.put(0).status == 404
    round_.lyon.announce()
    for number in ("1", "99999999", "-1", "0x0", "%30%30", "9" * 5000, "²", "x"):
        answer = stage.lyon.call("PUT", f"{round_.lyon.path}/update/{number}".replace("²", "%C2%B2"), b"x")
        assert answer.status in (404, 422), number


@pytest.mark.parametrize("length", [0, 1, -1, +1])
def test_a_chunk_of_another_length_is_refused(stage: Scene, round_: Round, length: int) -> None:
    update = round_.lyon
    update.announce()
    wrong = (update.data * 10_000)[: length if length in (0, 1) else len(update.data) + length]
    answer = update.put(0, wrong)
    assert (answer.status, answer.code) == (422, "malformed")
    assert update.announce().json == {"have": []}


def test_a_chunk_with_another_digest_is_refused_and_may_come_again(stage: Scene, round_: Round) -> None:
    update = round_.lyon
    update.announce()
    answer = update.put(0, bytes(len(update.data)))
    assert (answer.status, answer.code) == (422, "corrupt")
    assert update.put(0).status == 204
    assert update.commit().status == 200


@pytest.mark.parametrize("weight", [0, -1, LARGEST_WEIGHT, 2**53, 2**64, 10**400, 0.5, 8.0, "8", None, True, [8]])
@pytest.mark.parametrize("name", KINDS)
def test_a_weight_that_is_none_is_refused_even_if_signed(stage: Scene, round_: Round, name: str, weight) -> None:
    update = replace(sent(getattr(round_, name)), weight=weight)
    answer = update.commit()
    assert (answer.status, answer.code) == (422, "malformed")
    assert stage.state()["open"]["arrived"] == 0


@pytest.mark.parametrize("weight", [1, LARGEST_WEIGHT - 1])
def test_the_smallest_and_the_largest_weight_are_taken(stage: Scene, round_: Round, weight: int) -> None:
    assert replace(round_.lyon, weight=weight).send().json == {"duplicate": False}


HUGE = np.float32(3e38)
POISON = {
    "NaN": {"params.w": np.float32([np.nan, 0])},
    "minus NaN": {"params.w": np.uint32([0xFFC00001, 0]).view(np.float32)},
    "infinity": {"params.b": np.float32(np.inf)},
    "minus infinity": {"params.w": np.float32([0, -np.inf])},
    "a huge number": {"params.w": np.float32([HUGE, 0])},
    "numbers whose squares overflow": {"params.w": np.float32([1e30, -1e30])},
    "a number just over its share": {"params.b": np.float32(2.0**32 / (2 * 8)) * np.float32(1.001)},
    "infinities that cancel": {"params.w": np.float32([np.inf, -np.inf])},
    "NaN in the state": {"state.batches": np.float32(np.nan)},
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_an_update_that_cannot_be_added_is_refused_and_the_round_goes_on(stage: Scene, round_: Round, poison) -> None:
    bad = stage.update(stage.lyon, round_.lyon.work, data=bare.file_of(good_leaves() | poison, METRICS))
    answer = bad.send()
    assert (answer.status, answer.code) == (422, "refused")
    assert next(iter(poison)) in answer.json["error"]["message"]
    assert bad.commit().code == "refused", "and again"
    assert round_.nice.send().json == {"duplicate": False}
    stage.fresh_round()
    row = stage.row(round_.number)
    assert list(row["refused"]) == ["lyon"]
    assert stage.lyon.work(stage.key).json["outcome"] == {"round": round_.number, "accepted": False}
    assert stage.nice.work(stage.key).json["outcome"] == {"round": round_.number, "accepted": True}
    assert np.isfinite(row["train_loss"])


def test_the_largest_number_within_its_share_is_added(stage: Scene, round_: Round) -> None:
    share = 2.0**32 / (round_.lyon.work["cohort"] * 8)
    leaves = good_leaves() | {"params.b": np.float32(share) * np.float32(0.999)}
    assert stage.update(stage.lyon, round_.lyon.work, data=bare.file_of(leaves, METRICS)).send().status == 200


def without(name: str) -> dict:
    return {key: value for key, value in good_leaves().items() if key != name}


def typed(name: str, dtype: str) -> bytes:
    return bare.file_of(good_leaves() | {name: np.asarray(good_leaves()[name]).astype(dtype)}, METRICS)


GOOD = bare.file_of(good_leaves(), METRICS)
HEAD = 8 + int.from_bytes(GOOD[:8], "little")
MALFORMED = {
    "a missing leaf": bare.file_of(without("params.b"), METRICS),
    "no leaf": bare.file_of({}, METRICS),
    "a leaf too many": bare.file_of(good_leaves() | {"params.c": np.float32(0)}, METRICS),
    "a leaf of another name": bare.file_of(without("params.b") | {"params.B": np.float32(0)}, METRICS),
    "a longer leaf": bare.file_of(good_leaves() | {"params.w": np.zeros(3, np.float32)}, METRICS),
    "a leaf of another shape": bare.file_of(good_leaves() | {"params.w": np.zeros((2, 1), np.float32)}, METRICS),
    "an empty leaf": bare.file_of(good_leaves() | {"params.w": np.zeros(0, np.float32)}, METRICS),
    "float64": typed("params.w", "f8"),
    "float16": typed("params.w", "f2"),
    "int32": typed("params.w", "i4"),
    "int64": typed("params.w", "i8"),
    "bool": typed("params.w", "?"),
    "a tensor that is neither": GOOD.replace(b"metrics.loss", b"matrics.loss"),
    "metrics of float64": bare.file_of(good_leaves(), {"loss": np.float64(1), "examples": np.float64(8)}),
    "65 metrics": bare.file_of(good_leaves(), {f"m{i}": np.float32(1) for i in range(65)}),
    "metrics of a million and one values": bare.file_of(good_leaves(), {"loss": np.zeros((1 << 20) + 1, np.float32)}),
    "one byte": b"x",
    "zeros": bytes(200),
    "a pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "only its head": GOOD[:HEAD],
    "one byte short": GOOD[:-1],
    "one byte over": GOOD + b"x",
    "a header longer than all": (1 << 40).to_bytes(8, "little") + GOOD[8:],
    "a header of lists": bare.file_header(b"[" * 100_000),
    "a name of 513 characters": GOOD.replace(b"params.b", b"params." + b"b" * 500).replace(
        GOOD[:8], (HEAD - 8 + 499).to_bytes(8, "little")
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_file_that_is_no_update_is_refused_and_a_right_one_may_follow(
    stage: Scene, round_: Round, data: bytes
) -> None:
    answer = stage.update(stage.lyon, round_.lyon.work, data=data).send()
    assert (answer.status, answer.code) == (422, "malformed")
    assert stage.state()["open"]["arrived"] == 0
    assert round_.lyon.send().json == {"duplicate": False}


METRIC_LIES = {
    "none": {},
    "NaN": {"loss": np.float32(np.nan), "examples": np.float32(8)},
    "infinity": {"loss": np.float32(np.inf), "examples": np.float32(8)},
    "NaN examples": {"loss": np.float32(1), "examples": np.float32(np.nan)},
    "no examples": {"loss": np.float32(1), "examples": np.float32(0)},
    "minus examples": {"loss": np.float32(1), "examples": np.float32(-8)},
    "huge": {"loss": HUGE, "examples": HUGE},
    "no loss": {"examples": np.float32(8)},
    "only the loss": {"loss": np.float32(1)},
    "other shapes": {"loss": np.zeros(3, np.float32), "examples": np.zeros((2, 2), np.float32)},
    "empty": {"loss": np.zeros(0, np.float32), "examples": np.zeros(0, np.float32)},
    "unknown": {**METRICS, "round": np.float32(7), "accuracy": np.float32(1), "<b>": np.float32(1), "": np.float32(1)},
}


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("metrics", METRIC_LIES.values(), ids=METRIC_LIES.keys())
def test_no_metrics_of_a_client_end_the_run(stage: Scene, round_: Round, metrics, both: bool) -> None:
    data = bare.file_of(good_leaves(), metrics)
    answer = stage.update(stage.lyon, round_.lyon.work, data=data).send()
    assert answer.status in (200, 422)
    if both:
        assert stage.update(stage.nice, round_.nice.work, data=data).send().status in (200, 422)
    stage.fresh_round()
    assert stage.state()["state"] == "training"
    assert stage.row(round_.number)["round"] == round_.number


def test_a_round_that_refuses_everybody_ends_the_run_with_the_last_model_and_the_reason(own_stage: Scene) -> None:
    round_ = own_stage.fresh_round()
    data = bare.file_of(good_leaves() | POISON["NaN"], METRICS)
    for party, work in ((own_stage.lyon, round_.lyon.work), (own_stage.nice, round_.nice.work)):
        assert own_stage.update(party, work, data=data).send().code == "refused"
    told = own_stage.fleet.until("the parties are told", lambda: ended(own_stage), 10)
    assert told["state"] == "finished" and told["stopped"].startswith("diverged: All 2 clients")
    assert own_stage.lyon.call("GET", f"/v1/blobs/{told['model']}").status == 200


def ended(stage: Scene) -> dict | None:
    told = stage.lyon.work(stage.key).json
    return None if told["state"] == "train" or "stopped" not in told else told


@pytest.mark.parametrize(
    "reason",
    ["", "x" * 60_000, "\x1b[2J\x1b]0;owned\x07", "a\nb\r\nc\0d", "<img src=x onerror=alert(1)>", "[red]é\u202e"],
)
def test_a_reason_of_failure_is_bounded_and_harmless(stage: Scene, round_: Round, reason: str) -> None:
    answer = stage.lyon.call("POST", f"{round_.lyon.path}/failure", {"reason": reason})
    assert answer.status == 204
    shown = next(client for client in stage.state()["clients"] if client["name"] == "lyon")["last_error"]
    assert len(shown) <= 2000 and shown.isprintable()
    assert round_.lyon.send().status == 200, "and it may try again"


@pytest.mark.parametrize("field", ["train_examples", "held_out_examples"])
@pytest.mark.parametrize("count", [-1, 2**53, 2**63, 10**400, 0.5, "8", None, True])
def test_a_count_of_examples_that_is_none_is_refused(stage: Scene, guest, field: str, count) -> None:
    answer = guest().join(stage.run, **{field: count})
    assert (answer.status, answer.code) == (422, "malformed")


def test_the_update_that_was_checked_is_the_one_that_is_added(stage: Scene, round_: Round) -> None:
    """Announce other content while a commit is being checked: the commit counts with what was checked, or not at all."""
    poison = bare.file_of(good_leaves() | POISON["NaN"], METRICS)
    for _ in range(20):
        good, bad = round_.lyon, stage.update(stage.lyon, round_.lyon.work, data=poison)
        sent(good)
        racing = [threading.Thread(target=call) for call in (good.commit, bad.announce, partial(bad.put, 0))]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join(30)
        if stage.state()["open"]["arrived"]:
            break
    round_.lyon.send()
    round_.nice.send()
    stage.fresh_round()
    assert stage.row(round_.number)["refused"] in ({}, {"lyon": ["params.w"]})
    assert stage.state()["state"] == "training"


@pytest.mark.parametrize("name", KINDS)
def test_an_update_of_one_chunk_is_sent_and_committed_in_one_call(stage: Scene, round_: Round, name: str) -> None:
    update = getattr(round_, name)
    assert update.put_whole().json == {"duplicate": False}
    assert stage.state()["open"]["arrived"] == 1
    assert update.put_whole().json == {"duplicate": True}
    assert update.commit().json == {"duplicate": True}
    changed = replace(update, data=bare.file_of(good_leaves() | {"params.b": np.float32(3)}, METRICS))
    assert changed.put_whole().code == "conflict"


@pytest.mark.parametrize("name", KINDS)
def test_one_call_refuses_what_three_would(stage: Scene, round_: Round, name: str) -> None:
    update = getattr(round_, name)
    theirs = replace(other(round_, name), party=update.party)
    for wrong in (
        update.put_whole(weight=9),
        update.put_whole(model="0" * 64),
        update.put_whole(signature=""),
        update.put_whole(**update.word(other(round_, name).party.key)),
        theirs.put_whole(**theirs.word(other(round_, name).party.key)),
    ):
        assert (wrong.status, wrong.code) == (403, "signature")
    for wrong in (update.put_whole(digest="0" * 64), update.put_whole(update.data[:-1] + b"!")):
        assert (wrong.status, wrong.code) == (422, "corrupt")
    for wrong in (update.put_whole(digest="x"), update.put_whole(weight="many"), update.put_whole(b"")):
        assert (wrong.status, wrong.code) == (422, "malformed")
    large = update.party.call("PUT", f"{update.path}/update", headers={"Content-Length": str(update.chunk_bytes + 1)})
    assert (large.status, large.code) == (413, "too_large")
    assert stage.state()["open"]["arrived"] == 0
    assert update.put_whole().json == {"duplicate": False}, "and the right one still counts"


def test_one_call_into_a_round_that_is_over_is_refused(stage: Scene, round_: Round) -> None:
    following = stage.fresh_round()
    late = round_.lyon.put_whole()
    assert (late.status, late.code) == (410, "over")
    assert following.lyon.put_whole().status == 200
