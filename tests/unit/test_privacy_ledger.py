"""The ledger: on the disk before a release, once a round, whatever is killed, whoever else writes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from koinon.cli.commands import report_run
from koinon.errors import StoreError
from koinon.privacy.ledger import Entry, Ledger, Scope
from koinon.privacy.mechanism import Adjacency, Event
from koinon.store.run_directory import RunDirectory

EVENT = Event(1.1, 0.1, Adjacency.ADD_OR_REMOVE)
SCOPE = Scope("abc", Adjacency.ADD_OR_REMOVE, "client")


def allow(spent) -> None:
    return None


def entry(round: int, run: str = "one", event: Event = EVENT) -> Entry:
    return Entry(run, round, event)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledgers" / "hospital.jsonl"


def read(path: Path) -> Ledger:
    ledger = Ledger(path, SCOPE)
    ledger.refresh()
    return ledger


def test_what_is_spent_is_read_again(path: Path) -> None:
    ledger = Ledger(path, SCOPE)
    other = Event(2.0, 1.0, Adjacency.ADD_OR_REMOVE)
    for round in range(1, 4):
        assert ledger.spend(entry(round), allow) is None
    ledger.spend(entry(1, "two", other), allow)
    assert read(path).spent == ledger.spent == {EVENT: 3, other: 1}
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_round_of_several_releases_counts_as_several(path: Path) -> None:
    ledger = Ledger(path, SCOPE)
    for round in (1, 2):
        ledger.spend(Entry("one", round, EVENT, times=10), allow)
    ledger.spend(entry(1, "two"), allow)
    assert read(path).spent == ledger.spent == {EVENT: 21}
    assert len(read(path)) == 3, "rounds"


def test_a_round_counts_once_however_often_it_is_repeated(path: Path) -> None:
    for _ in range(3):
        ledger = Ledger(path, SCOPE)
        assert ledger.spend(entry(1), allow) is None
        assert ledger.spend(entry(1), lambda spent: "known rounds are not asked for again") is None
    assert read(path).spent == {EVENT: 1}


def test_a_round_that_is_repeated_otherwise_is_refused(path: Path) -> None:
    Ledger(path, SCOPE).spend(entry(1), allow)
    with pytest.raises(StoreError, match=r"round 1 of this run as Event\(multiplier=1.1"):
        Ledger(path, SCOPE).spend(entry(1, event=Event(0.5, 0.1, Adjacency.ADD_OR_REMOVE)), allow)


def test_what_is_refused_is_not_written(path: Path) -> None:
    ledger = Ledger(path, SCOPE)
    assert ledger.spend(entry(1), lambda spent: "too much") == "too much"
    assert (len(ledger), len(read(path))) == (0, 0)


def test_two_runs_on_one_data_set_see_each_other(path: Path) -> None:
    one, two = Ledger(path, SCOPE), Ledger(path, SCOPE)
    seen = []
    for round in range(1, 4):
        one.spend(entry(round), allow)
        two.spend(entry(round, "two"), lambda spent: seen.append(spent[EVENT]))
    assert seen == [1, 3, 5], "whoever writes has read what the other wrote"
    assert read(path).spent == {EVENT: 6}


def test_a_line_that_a_crash_left_unfinished_was_no_release(path: Path) -> None:
    Ledger(path, SCOPE).spend(entry(1), allow)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        ledger = Ledger(path, SCOPE)
        ledger.spend(entry(2), allow)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines[0] == SCOPE.to_json()
        assert [line["round"] for line in lines[1:]] == [2]
    for torn in (b'{"run": "one", "rou', b'{"run": "' + b"x" * 1000):  # shorter and longer than what is written over it
        path.write_bytes(whole + torn)
        Ledger(path, SCOPE).spend(entry(2), allow)
        assert len(read(path)) == 2
        assert [json.loads(line)["round"] for line in path.read_text().splitlines()[1:]] == [1, 2], "whole lines only"


@pytest.mark.parametrize(
    "scope", [Scope("other", SCOPE.adjacency, "client"), Scope("abc", Adjacency.REPLACE_ONE, "client"), Scope("abc", SCOPE.adjacency, "example")]
)  # fmt: skip
def test_a_ledger_of_something_else_is_refused(path: Path, scope: Scope) -> None:
    Ledger(path, SCOPE).spend(entry(1), allow)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is a ledger of another (data|adjacency|unit)"):
        Ledger(path, scope).spend(entry(1), allow)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        b"once upon a time\n",
        b"{}\n",
        b'{"run": "one", "round": 1}\n',
        b"[1]\n",
        (json.dumps({**entry(1).to_json(), "times": 0}) + "\n").encode(),
    ],
)
def test_a_damaged_ledger_is_not_counted_as_an_empty_one(path: Path, line: bytes) -> None:
    Ledger(path, SCOPE).spend(entry(1), allow)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(StoreError, match="is not a privacy ledger, or is damaged"):
        read(path)


def test_a_ledger_without_its_header_is_not_trusted(path: Path) -> None:
    """It says what the rounds are about: without it they could be anybody's."""
    Ledger(path, SCOPE).spend(entry(1), allow)
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(StoreError, match="is not a privacy ledger, or is damaged"):
        read(path)


def test_a_line_that_a_full_disk_cut_short_stops_the_release(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up takes a part of a line and reports no error."""
    ledger, write = Ledger(path, SCOPE), os.pwrite
    ledger.spend(entry(1), allow)
    monkeypatch.setattr(os, "pwrite", lambda file, text, place: write(file, text[:-9], place))
    with pytest.raises(StoreError, match=r"cannot be used: .*No release happens"):
        ledger.spend(entry(2), allow)
    monkeypatch.undo()
    assert read(path).spent == ledger.spent == {EVENT: 1}
    assert ledger.spend(entry(2), allow) is None
    assert read(path).spent == {EVENT: 2}


def test_a_ledger_that_cannot_be_written_stops_the_release(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="No release happens that it does not have"):
        Ledger(tmp_path / "folder", SCOPE).spend(entry(1), allow)


def test_a_test_mode_marks_the_ledger(path: Path) -> None:
    ledger = Ledger(path, SCOPE)
    ledger.spend(entry(1), allow)
    assert ledger.secret
    ledger.spend(Entry("two", 1, EVENT, secret=False), allow)
    assert not read(path).secret


def test_two_processes_lose_no_line(path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, pathlib
        from koinon.privacy.ledger import Entry, Ledger, Scope
        from koinon.privacy.mechanism import Adjacency, Event
        ledger = Ledger(pathlib.Path(sys.argv[1]), Scope("abc", Adjacency.ADD_OR_REMOVE, "client"))
        for round in range(40):
            ledger.spend(Entry(sys.argv[2], round, Event(1.1, 0.1, Adjacency.ADD_OR_REMOVE)), lambda spent: None)
        """
    )
    both = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in ("one", "two")]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert read(path).spent == {EVENT: 80}


APP = """
import os, signal
import koinon as kn
import linear
from koinon.privacy.releases import Releases

real = Releases.release
def mortal(self, round, total):
    if os.environ.get("DIE_IN") == str(round):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, round, total)
Releases.release = mortal

app = kn.App(
    model=linear.LinearModel(),
    clients=linear.clients((6, 8, 12)),
    algorithm=kn.fedavg(kn.sgd(0.1), cohort=kn.Poisson(0.6), channel=(kn.Clip(1.0), kn.GaussianNoise(1.5))),
    stop=kn.Stop(rounds=5),
    privacy=kn.PrivacyBudget(epsilon=50.0, ledger="ledger.jsonl"),
    privacy_test_mode=os.environ.get("TEST_MODE") == "1",
)
"""


def run(folder: Path, out: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from koinon.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "run", "app.py", "--out", out, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_run_killed_between_the_entry_and_the_release_counts_the_round_once(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    straight = json.loads(run(tmp_path, "straight", TEST_MODE="1").stdout)
    (tmp_path / "ledger.jsonl").unlink()
    for killed in ("2", "3"):
        assert run(tmp_path, "kept", TEST_MODE="1", DIE_IN=killed).returncode == -signal.SIGKILL
        lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
        assert lines[-1]["round"] == int(killed), "the entry is there though the release is not"
        with RunDirectory.read_only(tmp_path / "kept") as directory:
            assert "privacy" not in directory.about()
        report_run(tmp_path / "kept", as_json=False)
        assert "No statement yet: it is counted when" in (tmp_path / "kept" / "report.html").read_text()
    done = run(tmp_path, "kept")  # whether a run is a test is its own, however it is gone on with
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()][1:]
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5]
    assert len({line["run"] for line in lines}) == 1
    result = json.loads(done.stdout)
    assert result["digest"] == straight["digest"], "the noise that is repeated is the same noise"
    assert not result["privacy"]["guarantee"]
    assert "test mode" in result["privacy"]["why_not"]
