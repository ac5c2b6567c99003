"""Protocol v1 as it was recorded: today's coordinator answers those requests so, and today's participant makes them.

``KOINON_GOLDEN=write python -m pytest tests/golden/sessions`` records anew. A difference in the texts is a change of
the wire: a coordinator of version 1 has to go on answering what stands there.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from golden.sessions.page import visit
from golden.sessions.stage import AGREEMENT, CHUNK_BYTES, PARTY_KEY, ROUNDS, resolved, stage
from golden.sessions.tape import Call, depends, differs, make, read, written
from golden.sessions.wires import from_tape, handed_on
from koinon.engines.catalogue import engine
from koinon.fleet.participant.connection import Reach
from koinon.fleet.participant.floors import Floors
from koinon.fleet.participant.participant import Ended, Participation, participate
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.signatures import digest
from koinon.store import tensors

HERE = Path(__file__).parent
ABOUT = {
    "participant": "A participant's whole life: it enrols, trains and judges in two rounds, takes the result, says goodbye.",
    "small": "The same with a model and updates of one chunk: they come and go in one call for each half of a round.",
    "page": "A page's whole life, with P-256, parts of blobs, messages, and the mistakes that a coordinator must refuse.",
}
CHUNKS = {"small": 1 << 16}  # bytes
WRITE = os.environ.get("KOINON_GOLDEN") == "write"


def tape(name: str) -> list[Call]:
    return read((HERE / f"{name}.txt").read_text(encoding="utf-8"))


def take_part(port: int, token: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Ended:
    """Be the participant of the tape: its key is known, and so are its numbers."""
    folder.mkdir()
    (folder / "identity.key").write_text(PARTY_KEY)
    app = resolved()
    url = f"http://127.0.0.1:{port}"
    part = Participation(
        training=app.program(), engine=engine(app.engine), agreement=AGREEMENT, name="lyon",
        link=JoinLink(url, token, None), floors=Floors(), reach=Reach(url=url, patience=5.0),
    )  # fmt: skip
    for name, value in (
        ("participant._RECEIPTS_SECONDS", 60.0),
        ("sending._LANES", 1),
    ):  # how fast the machine is must not show
        monkeypatch.setattr(f"koinon.fleet.participant.{name}", value)
    return participate(part, folder, lambda line: None)


@pytest.mark.skipif(not WRITE, reason="KOINON_GOLDEN=write records the sessions anew")
@pytest.mark.parametrize("name", ABOUT)
def test_record(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        stage(tmp_path / "coordinator", monkeypatch, CHUNKS.get(name, CHUNK_BYTES)) as coordinator,
        handed_on(coordinator.port, coordinator.settle) as wire,
    ):
        if name == "page":
            visit(wire.port, coordinator.token, coordinator.operator)
        else:
            take_part(wire.port, coordinator.token, tmp_path / "lyon", monkeypatch)
    (HERE / f"{name}.txt").write_text(written(ABOUT[name], wire.calls), encoding="utf-8")


@pytest.mark.parametrize("name", ABOUT)
def test_todays_coordinator_answers_as_it_did(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = []
    with stage(tmp_path / "coordinator", monkeypatch, CHUNKS.get(name, CHUNK_BYTES)) as coordinator:
        for number, then in enumerate(tape(name), start=1):
            if depends(then.sent):
                coordinator.settle()
            now = make(coordinator.port, then.sent).answered
            for what, recorded, found in (
                ("status", then.answered.line, now.line),
                ("headers", dict(then.answered.headers), dict(now.headers)),
                ("body", then.answered.json, now.json),
            ):
                if difference := differs(recorded, found):
                    wrong.append(f"call {number}, {then.sent.line}: {what} {difference}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["participant", "small"])
def test_todays_participant_makes_the_calls_that_were_recorded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = tape(name)
    token = next(call.sent.json["token"] for call in then if call.sent.line.endswith("/enrol"))
    with from_tape(then) as wire:
        try:
            ended = take_part(wire.port, token, tmp_path / "lyon", monkeypatch)
        finally:
            assert not wire.wrong, wire.wrong[0]
    assert len(wire.calls) == len(then)
    assert (ended.state, ended.model) == ("finished", tmp_path / "lyon" / "golden.safetensors")


def test_a_small_round_is_two_calls() -> None:
    """One for its training half and one for its judging half: nothing else is said between the first work and the end."""
    lines = [call.sent.line.partition("?")[0].partition("/v1/runs/")[2].partition("/")[2] for call in tape("small")]
    begins = lines.index("work")
    halves = [f"rounds/{i}/{purpose}/update" for i in range(1, ROUNDS + 1) for purpose in ("train", "evaluate")]
    assert lines[begins + 1 : begins + 1 + len(halves)] == halves


def test_who_has_the_updates_can_compute_the_sum_of_a_receipt_again() -> None:
    """By the fixed-point formula itself, not by koinon's own sums."""
    calls = tape("participant")
    file = b"".join(
        call.sent.body for call in calls if "PUT" in call.sent.line and "/rounds/1/train/" in call.sent.line
    )
    weight = next(call.sent.json["weight"] for call in calls if call.sent.line.endswith("/rounds/1/train/commit"))
    leaves = tensors.layout(memoryview(file), len(file)).views(file)
    lines = [
        f"{name.removeprefix('update.')} {digest(np.rint(np.float64(leaf) * (weight * 2.0**30)).astype('<i8').tobytes())}\n"
        for name, leaf in sorted(leaves.items())
        if name.startswith("update.")
    ]
    receipts = next(
        found for call in calls if "/receipts?" in call.sent.line and (found := call.answered.json["receipts"])
    )
    assert receipts[0]["receipt"]["aggregate"] == digest("".join(lines).encode())


def test_a_tape_is_read_as_it_was_written() -> None:
    for name, about in ABOUT.items():
        assert written(about, tape(name)) == (HERE / f"{name}.txt").read_text(encoding="utf-8")


def test_what_was_recorded_must_stay_and_what_is_new_may_come() -> None:
    recorded = {"runs": [{"run": "r-1", "state": "waiting"}]}
    assert differs(recorded, {"runs": [{"run": "r-1", "state": "waiting", "more": 1}], "more": []}) is None
    for other in (
        {"runs": [{"run": "r-1"}]},
        {"runs": [{"run": "r-1", "state": "idle"}]},
        {"runs": []},
        {"runs": [{"run": "r-1", "state": None}]},
        {},
        [],
    ):
        assert differs(recorded, other), other
    assert differs({"error": {"code": "late", "message": "a"}}, {"error": {"code": "late", "message": "b"}}) is None
    assert differs({"error": {"code": "late", "message": "a"}}, {"error": {"code": "over", "message": "a"}})
    assert differs(1, True)
    assert differs(b"a", b"b")
