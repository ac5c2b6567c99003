"""Work that comes with its model, and the answer to an update that is the next work: for who asks for it."""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import bare
import pytest
from scene import Round, Scene

ROOM = 1 << 20
SOON, LONG = 1.0, 20  # seconds


def opened(answer: bare.Answer) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of an answer and the model behind it."""
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream")
    length = int.from_bytes(answer.body[:8], "little")
    return json.loads(answer.body[8 : 8 + length]), answer.body[8 + length :]


def asked(party: bare.Party, run: str, **query: Any) -> bare.Answer:
    """Ask for work."""
    return party.call("GET", f"/v1/runs/{run}/work?{urlencode({'wait': 0, **query})}")


def sent(update: bare.Update, **query: Any) -> bare.Answer:
    """Send an update in one call."""
    told = {"digest": update.digests[0], **update.word()}
    told = {name: told[name] for name in ("digest", "weight", "model", "signature")}
    return update.party.call("PUT", f"{update.path}/update?{urlencode({**told, **query})}", update.data)


class Sending(threading.Thread):
    """Sends an update, and waits for what is answered."""

    def __init__(self, update: bare.Update, **query: Any) -> None:
        super().__init__(daemon=True)
        self._update, self._query = update, query
        self.answer: bare.Answer | None = None
        self.start()

    def run(self) -> None:
        self.answer = sent(self._update, **self._query)

    def answered(self) -> bare.Answer:
        self.join(LONG)
        assert self.answer is not None, "no answer has come"
        return self.answer


def arrived(stage: Scene, count: int) -> None:
    """Wait until so many updates are here."""
    deadline = time.monotonic() + LONG
    while (now := stage.state()["open"]["arrived"]) < count:
        assert time.monotonic() < deadline, f"{now} have arrived"
        time.sleep(0.02)


def test_a_model_comes_with_its_work(stage: Scene, round_: Round) -> None:
    plain = dict(asked(stage.lyon, round_.run).json)
    work, model = opened(asked(stage.lyon, round_.run, carry=ROOM))
    assert {**work, "seconds": 0} == {**plain, "seconds": 0}
    assert (len(model), bare.sha256(model)) == (work["bytes"], work["model"])
    told = stage.lyon.call("GET", f"/v1/runs/{round_.run}").json
    assert told["carried_bytes"] >= len(model)


@pytest.mark.parametrize(
    "query", [{}, {"carry": 0}, {"carry": "one less"}, {"carry": ROOM, "have": "it"}, {"have": "it"}], ids=str
)
def test_a_model_that_is_not_asked_for_stays_away(stage: Scene, round_: Round, query: Mapping[str, Any]) -> None:
    work = asked(stage.lyon, round_.run).json
    meant = {"one less": work["bytes"] - 1, "it": work["model"]}
    answer = asked(stage.lyon, round_.run, **{name: meant.get(value, value) for name, value in query.items()})
    assert (answer.headers["content-type"], answer.json["model"]) == ("application/json", work["model"])


@pytest.mark.parametrize("query", [{"carry": "much"}, {"carry": -1}, {"since": "x"}, {"wait": "long"}], ids=str)
def test_nothing_is_committed_with_a_query_that_makes_no_sense(
    stage: Scene, round_: Round, query: Mapping[str, Any]
) -> None:
    answer = sent(round_.lyon, **{"wait": LONG, **query})
    assert (answer.status, answer.code) == (422, "malformed")
    assert stage.state()["open"]["arrived"] == 0


def test_the_answer_to_an_update_is_the_next_work(stage: Scene, round_: Round) -> None:
    since = asked(stage.lyon, round_.run).json["serial"]
    lyon = Sending(round_.lyon, since=since, wait=LONG, carry=ROOM)
    arrived(stage, 1)
    lyon.join(SOON)
    assert lyon.is_alive(), "there is nothing to do before the other has answered"
    nice = sent(round_.nice)
    assert nice.json == {"duplicate": False}, "who does not wait is answered as ever"
    told, model = opened(lyon.answered())
    work = told.pop("work")
    assert told == {"duplicate": False}
    assert (work["state"], work["round"]) == ("train", round_.number + 1)
    assert work["outcome"] == {"round": round_.number, "accepted": True}
    assert bare.sha256(model) == work["model"]
    assert {**asked(stage.lyon, round_.run).json, "seconds": 0} == {**work, "seconds": 0}


def test_who_waits_in_vain_is_told_of_the_update_alone(stage: Scene, round_: Round) -> None:
    since = asked(stage.lyon, round_.run).json["serial"]
    began = time.monotonic()
    assert sent(round_.lyon, since=since, wait=1, carry=ROOM).json == {"duplicate": False}
    assert time.monotonic() - began >= 1
    again = sent(round_.lyon, since=since, wait=0, carry=ROOM)
    assert again.json == {"duplicate": True}, "and it counts once"


def test_work_that_is_there_already_is_not_waited_for(stage: Scene, round_: Round) -> None:
    since = asked(stage.lyon, round_.run).json["serial"]
    told = sent(round_.lyon, since=since - 1, wait=LONG).json
    assert (told["duplicate"], told["work"]["state"], told["work"]["serial"]) == (False, "idle", since)


def test_what_is_refused_is_refused_at_once(stage: Scene, round_: Round) -> None:
    since = asked(stage.lyon, round_.run).json["serial"]
    query = {"since": since, "wait": LONG, "carry": ROOM}
    began = time.monotonic()
    assert sent(round_.lyon, **query, weight=9).code == "signature"
    assert time.monotonic() - began < LONG / 2


def test_who_is_sent_away_while_it_waits_is_told_so(own_stage: Scene) -> None:
    round_ = own_stage.fresh_round()
    since = asked(own_stage.lyon, round_.run).json["serial"]
    lyon = Sending(round_.lyon, since=since, wait=LONG, carry=ROOM)
    arrived(own_stage, 1)
    own_stage.revoke(own_stage.lyon)
    assert lyon.answered().code == "revoked"


def test_an_update_is_kept_though_the_coordinator_is_killed_before_it_has_answered(own_stage: Scene) -> None:
    round_ = own_stage.fresh_round()
    since = asked(own_stage.lyon, round_.run).json["serial"]
    lyon = Sending(round_.lyon, since=since, wait=LONG, carry=ROOM)
    arrived(own_stage, 1)
    own_stage.fleet.coordinator.kill()
    assert lyon.answered().status == 0
    own_stage.fleet.serve()
    assert own_stage.lyon.begin().status == own_stage.nice.begin().status == 200
    arrived(own_stage, 1)
    assert sent(round_.lyon).json == {"duplicate": True}
