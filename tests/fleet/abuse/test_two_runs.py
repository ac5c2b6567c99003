"""Two runs on one coordinator: nothing that was said in one means anything in the other."""

from collections.abc import Callable
from dataclasses import replace

import bare
import pytest
from scene import Scene


@pytest.fixture(scope="module")
def both(stages: Callable[..., Scene]) -> tuple[Scene, Scene]:
    """The same two parties in two runs. ``nice`` has joined the first only."""
    first = stages("other_app.py")
    runs = first.lyon.call("GET", "/v1/runs").json["runs"]
    other = next(run for run in runs if run["run"] != first.key)
    third = bare.Party(first.fleet.url, "paris", bare.Key("p256"))
    for answer in (third.enrol(first.fleet.invite()), third.begin(), third.join(other), first.lyon.join(other)):
        assert answer.status in (200, 204)
    return first, replace(first, run=other, nice=third, used=0)


def test_each_run_has_its_own_app_and_name(both: tuple[Scene, Scene]) -> None:
    first, second = both
    assert first.run["app"] != second.run["app"] and first.run["name"] != second.run["name"]
    answer = first.lyon.join({"run": first.key, "app": second.run["app"]})
    assert (answer.status, answer.code) == (409, "other_app")


def test_a_word_given_in_one_run_is_none_in_the_other(both: tuple[Scene, Scene]) -> None:
    first, second = both
    here = first.update(first.lyon, first.asked(first.lyon))
    there = second.update(second.lyon, second.asked(second.lyon))
    assert here.work["round"] == there.work["round"] and here.root == there.root
    for update in (here, there):
        assert update.announce().status == 200 and update.put(0).status == 204
    answer = there.commit(here.word())
    assert (answer.status, answer.code) == (403, "signature")
    assert there.commit(there.word(run=first.key, model=there.work["model"])).code == "signature"
    assert there.commit().status == here.commit().status == 200


def test_a_message_of_one_run_is_none_in_the_other(both: tuple[Scene, Scene]) -> None:
    first, second = both
    number = first.asked(first.nice)["round"]
    letter = bare.message(first.lyon, first.key, number, "keys", "all", b"x")
    answer = first.lyon.call("POST", bare.messages_path(second.key, number, "keys"), letter)
    assert (answer.status, answer.code) == (403, "signature")
    to_nice = bare.message(first.lyon, second.key, number, "keys", first.nice.client, b"x")
    answer = first.lyon.call("POST", bare.messages_path(second.key, number, "keys"), to_nice)
    assert (answer.status, answer.code) == (404, "unknown"), "nice is not in that run"


def test_who_is_in_one_run_reads_and_writes_nothing_of_the_other(both: tuple[Scene, Scene]) -> None:
    first, second = both
    work = second.asked(second.nice)
    number = work["round"]
    assert first.nice.call("GET", f"/v1/blobs/{work['model']}").status == (
        200 if work["model"] == first.asked(first.nice)["model"] else 404
    )
    stranger = replace(second.update(second.nice, work), party=first.nice)
    assert [stranger.announce().code, stranger.put(0).code, stranger.commit().code] == ["not_joined"] * 3
    assert first.nice.work(second.key).code == "not_joined"
    box = bare.messages_path(second.key, number, "keys")
    assert first.nice.call("GET", box).code == "not_joined"
    letter = bare.message(first.nice, second.key, number, "keys", "all", b"x")
    assert first.nice.call("POST", box, letter).code == "not_joined"


def test_the_receipts_of_one_run_are_not_those_of_the_other(both: tuple[Scene, Scene]) -> None:
    first, second = both
    first.used = first.asked(first.nice)["round"]
    first.fresh_round()
    mine = first.lyon.call("GET", f"/v1/runs/{first.key}/receipts").json["receipts"]
    theirs = second.lyon.call("GET", f"/v1/runs/{second.key}/receipts").json["receipts"]
    assert mine and not [receipt for receipt in mine if receipt in theirs]
