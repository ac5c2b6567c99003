"""``koinon verify`` on the folders of a real run: what holds, and that no change of them goes unseen."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chains import COORDINATOR, LYON, chain, name, opening, receipt
from hypothesis import given
from hypothesis import strategies as st
from processes import Fleet

from koinon.cli.verify import End, Evidence, Own, Point, Sent, Standing, gather, look
from koinon.core.types import Purpose
from koinon.errors import StoreError
from koinon.fleet.wire.receipts import seal
from koinon.fleet.wire.signatures import OwnKey, encoded

APP = Path(__file__).parent / "faults" / "app.py"
NAMES = ("lyon", "nice", "paris")
ROUNDS = 3


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that a run of three parties leaves: ``coordinator`` and one a party."""
    folder = tmp_path_factory.mktemp("verified")
    with Fleet(folder, APP, changes=(f"stop.rounds={ROUNDS}",)) as fleet:
        fleet.serve()
        for party in [fleet.join(name) for name in NAMES]:
            assert party.wait(60) == 0, fleet.story()
        assert fleet.coordinator.wait(60) == 0, fleet.story()
    return folder


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Returns a copy of one of the folders, to be spoilt."""
    return lambda which: Path(shutil.copytree(kept / which, tmp_path / which))


def points(folder: Path) -> tuple[Point, ...]:
    (evidence,) = gather(folder)
    return look(evidence)


def broken(folder: Path) -> list[str]:
    return [point.what for point in points(folder) if point.standing is Standing.BROKEN]


def seen(folder: Path) -> bool:
    """Whether a change was seen, as a broken point or as a file that cannot be read."""
    try:
        return bool(broken(folder))
    except StoreError:
        return True


def the(folder: Path, kind: str) -> Path:
    (path,) = (folder / kind).glob("*.jsonl")
    return path


def koinon_verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from koinon.cli.main import main; main()", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("which", ["coordinator", *NAMES])
def test_everything_holds_on_every_side(kept: Path, which: str) -> None:
    told = {point.what.partition(":")[0]: point for point in points(kept / which)}
    assert all(point.standing is not Standing.BROKEN for point in told.values())
    assert told["receipts"].what == f"receipts: rounds 1 to {ROUNDS}, without a gap, each signed by the coordinator"
    assert told["commits"].what == f"commits: all {2 * ROUNDS * len(NAMES)} in the receipts are signed by their clients"
    assert told["result"].standing is Standing.HOLDS
    assert ("own commits" in told) == (which != "coordinator")


def test_every_receipt_has_the_digest_of_the_sum(kept: Path) -> None:
    receipts = [json.loads(line)["receipt"] for line in the(kept / "lyon", "receipts").read_text().splitlines()]
    assert len({receipt["aggregate"] for receipt in receipts} - {None}) == ROUNDS


def test_all_sides_were_told_the_same(kept: Path) -> None:
    told = {p.what for which in ("coordinator", *NAMES) for p in points(kept / which) if "told the same" in p.what}
    assert len(told) == 1


def test_the_command_prints_what_holds_and_ends_well(kept: Path) -> None:
    done = koinon_verify(kept / "lyon")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Everything that could be checked holds.\n")
    assert f"own commits: {2 * ROUNDS} count" in done.stdout
    found = json.loads(koinon_verify(kept / "coordinator", "--json").stdout)
    assert found["holds"] is True
    assert {point["standing"] for point in found["runs"][0]["points"]} == {"holds", "unknown"}


def test_the_command_ends_badly_where_something_does_not_hold(copy: Callable[[str], Path]) -> None:
    folder = copy("nice")
    (folder / "app.safetensors").write_bytes(b"another model")
    done = koinon_verify(folder)
    assert done.returncode == 1
    assert "DOES NOT HOLD" in done.stdout and done.stdout.endswith("2 points do not hold.\n")
    assert json.loads(koinon_verify(folder, "--json").stdout)["holds"] is False
    nothing = koinon_verify(folder / "states")
    assert nothing.returncode == 1
    assert "neither a coordinator's folder nor a participant's" in nothing.stderr


def test_looking_changes_nothing(kept: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in kept.rglob("*") if path.is_file() and path.suffix != ".log"}

    before = files()
    for which in ("coordinator", *NAMES):
        points(kept / which)
    assert files() == before


@given(data=st.data())
def test_every_single_changed_byte_of_a_participants_records_is_seen(kept: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["receipts", "commits"]))
    path = the(kept / "lyon", kind)
    whole = path.read_bytes()
    text = bytearray(whole)
    place = data.draw(st.integers(0, len(text) - 2))  # the last byte ends the last line, and nothing hangs on it
    text[place] ^= data.draw(st.integers(1, 255))
    if sorted(map(str, _meaning(text))) == sorted(map(str, _meaning(whole))):
        return  # a space that became a tab, a letter that is written otherwise: it says the same
    path.write_bytes(text)
    try:
        assert seen(kept / "lyon")
    finally:
        path.write_bytes(whole)


def _meaning(text: bytes | bytearray) -> list[Any]:
    try:
        return [json.loads(line) for line in bytes(text).split(b"\n") if line]
    except ValueError:
        return []


@pytest.mark.parametrize("dropped", range(ROUNDS))
def test_a_dropped_receipt_is_seen(copy: Callable[[str], Path], dropped: int) -> None:
    """Also the last one: the result is not the model of the receipt before it."""
    path = the(copy("lyon"), "receipts")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:dropped] + lines[dropped + 1 :]))
    assert broken(path.parents[1])


def test_a_dropped_receipt_is_named_once_and_nobody_is_accused_of_the_rounds_behind_it(
    copy: Callable[[str], Path],
) -> None:
    path = the(copy("lyon"), "receipts")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    assert all("the receipt of round 2: " in what for what in broken(path.parents[1]))
    path.write_bytes(b"".join([lines[0], *lines]))
    assert {what.partition(": ")[0] for what in broken(path.parents[1])} == {"the receipt of round 1"}


def test_a_receipt_that_a_crash_cut_short_is_not_there_yet(copy: Callable[[str], Path]) -> None:
    """A participant that is started again writes the line anew."""
    path = the(copy("lyon"), "receipts")
    runs = the(path.parents[1], "runs")
    runs.write_bytes(runs.read_bytes().splitlines(keepends=True)[0])
    path.write_bytes(path.read_bytes()[:-20])
    assert broken(path.parents[1]) == []


def test_where_nothing_is_to_check_nothing_is_said_to_hold(copy: Callable[[str], Path]) -> None:
    folder = copy("lyon")
    path = the(folder, "runs")
    path.unlink()
    lost = koinon_verify(folder)
    assert lost.returncode == 1 and f"{path.name} is damaged (FileNotFoundError" in lost.stderr
    the(folder, "receipts").unlink()
    the(folder, "commits").unlink()
    nothing = koinon_verify(folder)
    assert (nothing.returncode, nothing.stdout) == (1, "") and "knows of no run" in nothing.stderr


def test_receipts_that_are_all_gone_are_seen(copy: Callable[[str], Path]) -> None:
    path = the(copy("lyon"), "receipts")
    path.unlink()
    assert broken(path.parents[1]) == [f"receipts: 0 are here, and {ROUNDS - 1} rounds are finished"]


def test_receipts_that_are_gone_while_the_run_goes_on_are_seen_a_round_later(copy: Callable[[str], Path]) -> None:
    """Those of the rounds before are fetched when an update is sent: until then they may be missing."""
    path = the(copy("lyon"), "receipts")
    runs, lines = the(path.parents[1], "runs"), path.read_bytes().splitlines(keepends=True)
    runs.write_bytes(runs.read_bytes().splitlines(keepends=True)[0])
    path.write_bytes(lines[0])
    assert broken(path.parents[1]) == []
    path.write_bytes(b"")
    assert broken(path.parents[1]) == ["receipts: 0 are here, and 1 rounds are finished"]


def test_a_commit_that_this_folder_never_made_is_seen(copy: Callable[[str], Path]) -> None:
    path = the(copy("paris"), "commits")
    lines = path.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[1])["purpose"] == "evaluate"
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert broken(path.parents[1]) == [
        "round 1, evaluate: the receipt lists a commit of this client, which this folder never made"
    ]


def test_a_coordinator_that_swaps_a_participants_update_is_seen_by_that_participant(
    copy: Callable[[str], Path],
) -> None:
    """The participant's own record is another: the coordinator's receipt, well signed, does not help."""
    path = the(copy("paris"), "commits")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["root"] = name("what was really sent")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert broken(path.parents[1]) == ["round 2, train: the receipt lists another commit of this client than it made"]


def test_another_coordinators_key_is_seen(copy: Callable[[str], Path]) -> None:
    folder = copy("nice")
    known = json.loads((folder / "coordinator.json").read_text())
    known["coordinator"] = encoded(LYON.public.raw)
    (folder / "coordinator.json").write_text(json.dumps(known))
    assert len([what for what in broken(folder) if "signature is not the coordinator's" in what]) == ROUNDS


def test_receipts_of_somebody_else_with_this_clients_name_are_seen(copy: Callable[[str], Path]) -> None:
    """The commits are signed, and not with the key that this participant has."""
    folder = copy("nice")
    (folder / "identity.key").write_text(bytes(range(1, 33)).hex())
    assert len([what for what in broken(folder) if "stands there with another key than its own" in what]) == ROUNDS


def test_another_app_than_the_one_that_was_joined_is_seen(copy: Callable[[str], Path]) -> None:
    path = the(copy("nice"), "runs")
    path.write_text(path.read_text().replace(json.loads(path.read_text().splitlines()[0])["app"], name("another app")))
    assert f"it belongs to run {path.stem}" in broken(path.parents[1])[0]


@pytest.fixture
def rows(copy: Callable[[str], Path]) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A coordinator's folder and its database, to be changed."""
    folder = copy("coordinator")
    database = sqlite3.connect(folder / "fleet.sqlite", isolation_level=None)
    yield folder, database
    database.close()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE rounds SET receipt = replace(receipt, '\"weight\":6', '\"weight\":7') WHERE number = 2", "round 2"),
        ("UPDATE rounds SET receipt = receipt || ' ' WHERE number = 2", "receipt 2 cannot be read"),
        ("UPDATE rounds SET receipt = NULL WHERE number = 3", "2 are here, and 3 rounds are finished"),
        ("DELETE FROM rounds WHERE number = 3", "not the model of round 2"),
        ("DELETE FROM rounds WHERE number = 2", "round 2 should stand here"),
        (
            "UPDATE rounds SET receipt = (SELECT receipt FROM rounds WHERE number = 1) WHERE number = 2",
            "round 2 should",
        ),
        ("UPDATE clients SET key = (SELECT key FROM clients WHERE name = 'nice') WHERE name = 'lyon'", "another key"),
        ("UPDATE runs SET identity = replace(identity, '\"seed\":0', '\"seed\":1')", "not to this one"),
        ('UPDATE runs SET ended = replace(ended, \'"digest": "\', \'"digest": "0\')', "does not have the digest"),
    ],
)
def test_a_change_of_the_coordinators_rows_is_seen(
    rows: tuple[Path, sqlite3.Connection], change: str, found: str
) -> None:
    folder, database = rows
    assert not broken(folder)
    assert database.execute(change).rowcount > 0
    assert found in "\n".join(broken(folder))


def test_a_changed_model_is_seen(copy: Callable[[str], Path]) -> None:
    folder = copy("coordinator")
    for blob in folder.glob("runs/*/blobs/*.safetensors"):
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
        assert any(f"model {blob.stem}" in what for what in broken(folder))


def test_another_coordinator_cannot_pass_these_receipts_off_as_its_own(copy: Callable[[str], Path]) -> None:
    folder = copy("coordinator")
    (folder / "coordinator.key").write_text(bytes(range(32)).hex())
    assert len([what for what in broken(folder) if "signature is not the coordinator's" in what]) == ROUNDS


# What a real run does not show: commits that came too late, were refused, or are still to be settled.


def evidence(sent: list[Sent], receipts: list[Any] | None = None) -> Evidence:
    texts = tuple(sealed.text() for sealed in (chain() if receipts is None else receipts))
    return Evidence(name="made", opening=opening(), texts=texts, own=Own("c-1", tuple(sent)))


def all_sent() -> list[Sent]:
    return [
        Sent(sealed.receipt.round, purpose, sealed.receipt.model(purpose), entry.commit)
        for sealed in chain()
        for purpose in (Purpose.TRAIN, Purpose.EVALUATE)
        for entry in sealed.receipt.asked(purpose)
        if entry.client == "c-1" and entry.commit is not None
    ]


def whats(made: Evidence, standing: Standing) -> list[str]:
    return [point.what for point in look(made) if point.standing is standing]


def test_a_late_or_refused_commit_is_listed_with_its_reason() -> None:
    late = receipt(1, opening().digest())
    entry = late.train[0]
    for commit in (entry.commit, None):  # None: it had not arrived when the round was settled
        listed = replace(late, train=(replace(entry, commit=commit, reason="late: ..."), *late.train[1:]))
        own = evidence(all_sent()[:2], [seal(listed, COORDINATOR)])
        assert not whats(own, Standing.BROKEN)
        assert "own commits: 1 count, and 1 are listed with why they do not" in whats(own, Standing.HOLDS)


def test_a_receipt_that_does_not_mention_a_commit_is_seen() -> None:
    silent = receipt(1, opening().digest())
    silent = replace(silent, train=silent.train[1:])
    own = evidence(all_sent()[:2], [seal(silent, COORDINATOR)])
    assert whats(own, Standing.BROKEN) == ["round 1, train: this client committed, and the receipt does not list it"]


def test_a_commit_of_a_round_to_come_is_not_checked() -> None:
    own = replace(evidence([*all_sent(), replace(all_sent()[0], round=4)]), rounds=3)
    assert not whats(own, Standing.BROKEN)
    assert "own commits: 1 are of rounds that have no receipt here" in whats(own, Standing.UNKNOWN)


def test_a_round_that_was_committed_twice_counts_by_either() -> None:
    """A coordinator that lost its last round to a power cut asks for it again."""
    first = replace(all_sent()[0], commit=replace(all_sent()[0].commit, root=name("before the power cut")))
    assert not whats(evidence([first, *all_sent()]), Standing.BROKEN)


def test_without_a_receipt_nothing_is_claimed() -> None:
    assert [point.standing for point in look(evidence([], []))] == [Standing.UNKNOWN, Standing.HOLDS]


def test_a_result_without_its_model_cannot_be_computed() -> None:
    last = chain()[-1].receipt
    made = replace(evidence(all_sent()), end=End(last.variables, name("parameters")))
    assert any(what.startswith("result: the model is not here") for what in whats(made, Standing.UNKNOWN))
    other = replace(made, end=End(name("another"), name("parameters")))
    assert whats(other, Standing.BROKEN) == ["result: it is not the model of round 3, the last with a receipt"]


def test_a_key_that_is_known_from_elsewhere_holds() -> None:
    made = replace(evidence(all_sent()), keys={"c-1": OwnKey(bytes([7]) * 32).public})
    assert len(whats(made, Standing.BROKEN)) == 3
    assert not whats(replace(made, keys={"c-1": LYON.public}), Standing.BROKEN)


def test_a_damaged_record_names_its_file(copy: Callable[[str], Path]) -> None:
    path = the(copy("lyon"), "commits")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=path.name):
        gather(path.parents[1])
