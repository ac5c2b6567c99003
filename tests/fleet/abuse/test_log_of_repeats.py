"""Who says the same again and again does not fill the coordinator's disk with it."""

import bare
from scene import Round, Scene


def test_what_a_client_repeats_in_a_round_is_logged_once(stage: Scene, round_: Round) -> None:
    assert round_.nice.announce().status == 200 and round_.nice.put(0).status == 204
    for _ in range(4):
        answer = round_.nice.commit(round_.nice.word(signature=bare.encoded(bytes(64))))
        assert (answer.status, answer.code) == (403, "signature")
    for i in range(4):
        stage.lyon.call("POST", f"{round_.lyon.path}/failure", {"reason": f"tired of {i}"})
    said = stage.fleet.coordinator.said(ever=True)
    assert [said.count(f"tired of {i}") for i in range(4)] == [1, 0, 0, 0]
    assert said.count(f"the update of nice for round {round_.number} (train) is refused") == 1
