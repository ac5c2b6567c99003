"""What a client may send when it is asked to judge a model: metric sums of its own examples, and nothing else."""

from dataclasses import replace

import bare
import pytest
from scene import Scene, good_leaves
from test_updates import METRIC_LIES, METRICS


@pytest.fixture
def judge(stage: Scene, guest) -> tuple[bare.Party, bare.Update]:
    """A third party that is asked to judge the model of a round in which everybody has trained."""
    party = guest()
    round_ = stage.fresh_round()
    assert party.join(stage.run, held_out_examples=4).status == 204
    assert bare.statuses([round_.lyon.send(), round_.nice.send()]) == [200, 200]

    def asked() -> dict | None:
        told = dict(stage.told(party))
        if told["state"] == "train":
            assert stage.update(party, told).send().status == 200
        return told if told["state"] == "evaluate" else None

    work = stage.fleet.until("it is asked to judge", asked, 20)
    return party, stage.update(party, work, data=bare.file_of({}, METRICS))


def test_what_is_signed_for_training_does_not_judge(stage: Scene, judge) -> None:
    _, update = judge
    assert update.announce().status == 200 and update.put(0).status == 204
    assert update.commit(update.word(purpose="train")).code == "signature"
    trained = replace(update, work={**update.work, "purpose": "train"})
    for answer in (trained.announce(), trained.put(0), trained.commit()):
        assert (answer.status, answer.code) == (410, "over")
    assert update.commit().json == {"duplicate": False}


def test_a_judge_sends_no_update(stage: Scene, judge) -> None:
    party, update = judge
    answer = stage.update(party, update.work, data=bare.file_of(good_leaves(), METRICS)).send()
    assert (answer.status, answer.code) == (422, "malformed")
    assert update.send().status == 200


@pytest.mark.parametrize("metrics", METRIC_LIES.values(), ids=METRIC_LIES.keys())
def test_no_judgement_of_a_client_ends_the_run(stage: Scene, judge, metrics) -> None:
    party, update = judge
    answer = stage.update(party, update.work, data=bare.file_of({}, metrics)).send()
    assert answer.status in (200, 422)
    if answer.status == 422:
        assert update.send().status == 200
    assert stage.fresh_round().number == update.work["round"] + 1
    assert party.name not in stage.row(update.work["round"])["lost"]
