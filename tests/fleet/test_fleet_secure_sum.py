"""A secure sum between real processes: the digest of the simulation, whoever is killed, and nothing of a single update."""

import hashlib
import json
import os
import random
import signal
from contextlib import closing
from pathlib import Path

import pytest

from fleet.processes import Fleet, Process, simulated
from fleet.secure_app import NAMES
from koinon.errors import ProtocolError
from koinon.fleet.participant.keep import Keep
from koinon.fleet.wire.rosters import draft, trusted
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.secure_sum.roster import Roster

APP = Path(__file__).parent / "secure_app.py"
MORTAL = str(Path(__file__).parent / "faults" / "mortal")


def begun(fleet: Fleet) -> None:
    fleet.serve()
    for name in NAMES:
        fleet.join(name)


def test_the_masks_leave_the_sum_of_the_simulation(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, tls=True, serve=("--stay",)) as fleet:
        begun(fleet)
        assert fleet.finishes(60) == simulated(APP, tmp_path)
        run = fleet.run()
        assert all(row["cohort"] == 5 and not row["lost"] for row in run["history"])
        assert {client["train_examples"] for client in run["clients"]} == {None}
        assert "honest-but-curious server only" in run["privacy"][0]
        assert "examples" not in fleet.coordinator.said()
    for path in (tmp_path / "lyon" / "states").iterdir():
        assert path.stat().st_size < 1000, "shares of others' secrets are not kept beyond their round"


@pytest.mark.parametrize(
    ("victim", "deaths"),
    [pytest.param(who, 25, marks=pytest.mark.slow) for who in ("coordinator", "lyon")],
)
def test_who_dies_and_comes_back_changes_nothing(victim: str, deaths: int, tmp_path: Path) -> None:
    rounds, draw = 4 + 2 * deaths, random.Random(5)
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"ROUNDS": str(rounds)}) as fleet:
        begun(fleet)
        fleet.reaches(1, 60)
        process = {"coordinator": fleet.coordinator, **fleet.participants}[victim]
        process.kill()
        process.environment["PYTHONPATH"] = os.pathsep.join([MORTAL, process.environment["PYTHONPATH"]])
        process.environment["DIES_UNDER"] = str(tmp_path / victim)
        for _ in range(deaths):
            process.environment["DIES_AT"] = str(draw.randint(1, 40))
            assert process.start().wait(60) == -signal.SIGKILL, f"{victim} ended by itself\n{process.said()}"
        process.environment["DIES_AT"] = "0"
        process.start()
        digest = fleet.finishes(200)
        assert all(not row["lost"] and not row["refused"] for row in fleet.run()["history"])
    assert digest == simulated(APP, tmp_path, (), {"ROUNDS": str(rounds)})


@pytest.mark.parametrize("dies_at", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 30, 2))])
def test_who_dies_for_good_at_any_step_is_left_out(dies_at: int, tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, environment={"LONGEST": "4", "HERE": "4"}) as fleet:
        fleet.serve()
        for name in NAMES[1:]:
            fleet.join(name)
        mortal = {"PYTHONPATH": os.pathsep.join([MORTAL, fleet.coordinator.environment["PYTHONPATH"]])}
        mortal |= {"DIES_AT": str(dies_at), "DIES_UNDER": str(tmp_path / "lyon" / "states")}
        victim = fleet.join("lyon", environment=mortal)
        assert victim.wait(60) == -signal.SIGKILL, fleet.story()
        fleet.finishes(120)
        assert fleet.participants["paris"].wait(60) == 0
        (noted,) = (tmp_path / "paris" / "receipts").iterdir()
    receipts = [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]
    assert len(receipts) == 6
    assert all(receipt["aggregate"] for receipt in receipts)


def koinon(folder: Path, *words: str) -> str:
    one = Process(f"command-{words[1]}", words, folder).start()
    assert one.wait(60) == 0, one.said()
    return one.said()


def test_a_roster_says_who_may_be_in_the_sum(tmp_path: Path) -> None:
    file = tmp_path / "hospitals.roster"
    koinon(tmp_path, "roster", "new", str(file), "Hospitals of the south")
    for name in NAMES[:4]:
        koinon(tmp_path, "roster", "add", str(file), name, koinon(tmp_path, "roster", "key", name).split()[-1])
    said = koinon(tmp_path, "roster", "sign", str(file), "--key", "authority.key")
    trusted = ("--roster", str(file), "--roster-key", said.split("--roster-key ")[1].split()[0])
    with Fleet(tmp_path, APP, serve=("--roster", str(file)), environment={"HERE": "4"}) as fleet:
        fleet.serve()
        for name in NAMES[:4]:
            fleet.join(name, options=trusted)
        stranger = fleet.join("tours")
        assert stranger.wait(60) != 0
        assert "has no member with the key ed25519:" in stranger.said()
        fleet.finishes(120)
        assert fleet.participants["paris"].wait(60) == 0
        (noted,) = (tmp_path / "paris" / "receipts").iterdir()
    receipts = [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]
    digest = hashlib.sha256(file.read_bytes().rpartition(b"signature")[0]).hexdigest()
    for receipt in receipts:
        assert receipt["roster"] == digest
        assert {entry["name"] for entry in receipt["train"] if entry["reason"] is None} == set(NAMES[:4])


def test_an_older_roster_is_refused(tmp_path: Path) -> None:
    first = Roster(federation="south", members={"lyon": OwnKey(bytes(range(32))).public.text})
    with closing(Keep(tmp_path)) as keep:
        keep.accept_roster(first.remove("lyon"))
        keep.accept_roster(first.remove("lyon"))
        with pytest.raises(ProtocolError, match="Get the latest"):
            keep.accept_roster(first)
        keep.accept_roster(Roster(federation="north"))


def test_a_roster_of_another_signer_is_refused(tmp_path: Path) -> None:
    file, stranger = tmp_path / "roster", OwnKey(bytes(32))
    file.write_bytes(Roster(federation="south").signed(OwnKey(bytes(range(32))).sign))
    with pytest.raises(ProtocolError, match="not that of the key you trust"):
        trusted(file, stranger.public.text)
    assert draft(file) == Roster(federation="south")
