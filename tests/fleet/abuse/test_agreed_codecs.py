"""How numbers travel is agreed when a client joins, and not found out in the round."""

from collections.abc import Callable

import pytest
from scene import Scene

import koinon as kn
from koinon.fleet.wire.codecs import codec_of


@pytest.mark.parametrize(
    ("channel", "codec"),
    [
        ((), None),
        ((kn.Clip(1.0),), None),
        ((kn.Quantise(4),), "int8"),
        ((kn.Clip(1.0), kn.Quantise(block=64)), "int8"),
        ((kn.Bfloat16(),), "bfloat16"),
    ],
)
def test_a_channel_says_what_a_client_must_know(channel: tuple, codec: str | None) -> None:
    assert codec_of(kn.fedavg(channel=channel).wires()[-1][1]) == codec


def test_a_client_that_does_not_know_the_codec_does_not_join(stages: Callable[..., Scene]) -> None:
    scene = stages("small_app.py")
    run = next(run for run in scene.lyon.call("GET", "/v1/runs").json["runs"] if run["name"] == "small_app")
    for codecs in ([], ["bfloat16"], ["INT8"]):
        answer = scene.lyon.join(run, codecs=codecs)
        assert (answer.status, answer.code) == (409, "codec")
    assert scene.lyon.join(run, codecs=["bfloat16", "int8"]).status == 204
