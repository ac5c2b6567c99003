"""Several key holders that share every sum, as real processes: without each of them there is no number."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.key_holders import Holder, decided, mortal
from fleet.processes import Fleet, Process, simulated
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.secure_sum.roster import Roster

pytest.importorskip("tenseal", reason="needs koinon[he]")

APP = Path(__file__).parent / "encrypted_app.py"
NAMES = ("lyon", "metz", "nice", "paris")


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[tuple[Holder, Holder]]:
    """Two key holders that serve."""
    pair = Holder(tmp_path, "athens"), Holder(tmp_path, "delos")
    try:
        for one in pair:
            one.serve()
        yield pair
    finally:
        for one in pair:
            one.kill()


def keys(*holders: Holder) -> str:
    """Return what the app is told of its key holders."""
    return " ".join(one.key for one in holders)


@contextmanager
def federation(
    folder: Path, app: str, links: tuple[Holder, ...], parties: tuple[str, ...], **more: str
) -> Iterator[Fleet]:
    """Yield a coordinator with some key holders, and its parties at work."""
    serve = ("--stay", *(word for one in links for word in ("--keyholder", one.link)))
    with Fleet(folder, APP, tls=True, serve=serve, environment={"HOLDER": app, **more}) as fleet:
        fleet.serve()
        for name in parties:
            fleet.join(name)
        yield fleet


def test_the_sum_of_two_key_holders_is_the_simulations(tmp_path: Path, holders: tuple[Holder, Holder]) -> None:
    app = keys(*holders)
    with federation(tmp_path, app, holders[::-1], NAMES, ROUNDS="3") as fleet:
        digest = fleet.finishes(100)
        assert all(row["cohort"] == 4 and not row["lost"] for row in fleet.run()["history"])
    assert digest == simulated(APP, tmp_path, (), {"HOLDER": app, "ROUNDS": "3"})
    for one in holders:
        assert "one of 2 (experimental), round 3" in one.said()
        assert decided(one, "answered.json") == decided(one, "released.json")


@pytest.mark.slow
def test_a_share_that_one_has_let_out_is_the_others_too_after_they_died(
    tmp_path: Path, holders: tuple[Holder, Holder]
) -> None:
    app, (athens, delos) = keys(*holders), holders
    with federation(tmp_path, app, holders, NAMES, ROUNDS="5") as fleet:
        fleet.reaches(1, 60)
        delos.kill()
        fleet.until(
            "the run names who is missing",
            lambda: delos.link.split("/keyholder")[0] in str(fleet.run()["waits_for"]),
            30,
        )
        mortal(delos, delos.store, 13)  # of its changes the one after which its share would leave
        assert delos.start().wait(60) == -signal.SIGKILL, delos.said()
        assert decided(delos, "answered.json") != decided(delos, "released.json")
        assert decided(athens, "answered.json") == decided(athens, "released.json")
        fleet.coordinator.kill()
        athens.kill()
        delos.environment["DIES_AT"] = "0"
        for one in (athens, delos):
            one.serve()
        fleet.serve()
        digest = fleet.finishes(100)
        assert all(row["cohort"] == 4 and not row["lost"] for row in fleet.run()["history"])
        assert "is asked for anew" not in fleet.coordinator.said(ever=True)
    assert digest == simulated(APP, tmp_path, (), {"HOLDER": app, "ROUNDS": "5"})


def test_without_one_of_the_keys_there_is_no_round(tmp_path: Path, holders: tuple[Holder, Holder]) -> None:
    other = Holder(tmp_path, "other")
    other.serve()
    try:
        with federation(tmp_path, keys(holders[0], other), holders, NAMES) as fleet:
            said = f"the key holder of the app, whose key is {other.key}"
            fleet.until("the run waits", lambda: said in str(fleet.run()["waits_for"]), 60)
            assert fleet.rounds() <= 0
        assert not any("Answered with a share" in one.said() or "Refused" in one.said() for one in holders)
    finally:
        other.kill()


def test_a_coordinator_with_too_few_key_holders_does_not_serve(tmp_path: Path, holders: tuple[Holder, Holder]) -> None:
    link = holders[0].link
    with Fleet(tmp_path, APP, serve=("--keyholder", link), environment={"HOLDER": keys(*holders)}) as fleet:
        assert fleet.coordinator.start().wait(60) == 2
        assert "--keyholder names 1 of 2." in fleet.coordinator.said()


@pytest.mark.slow
def test_key_holders_who_die_and_come_back_change_nothing(tmp_path: Path, holders: tuple[Holder, Holder]) -> None:
    deaths, draw = 8, random.Random(11)
    app, rounds = keys(*holders), str(4 + 4 * deaths)
    with federation(tmp_path, app, holders, NAMES, ROUNDS=rounds) as fleet:
        fleet.reaches(1, 60)
        for turn in range(2 * deaths):
            one = holders[turn % 2]
            one.kill()
            mortal(one, one.store, draw.randint(1, 30))
            assert one.start().wait(60) == -signal.SIGKILL, f"{one.name} ended by itself\n{one.said()}"
            one.environment["DIES_AT"] = "0"
            one.start()
        digest = fleet.finishes(200)
        assert all(not row["lost"] and not row["refused"] for row in fleet.run()["history"])
    assert digest == simulated(APP, tmp_path, (), {"HOLDER": app, "ROUNDS": rounds})


@pytest.mark.slow
def test_whom_one_key_holder_refuses_is_sent_away_and_the_round_begun_anew(tmp_path: Path) -> None:
    """The other holder has agreed to count this client, and has let nothing out: so it may be asked for another sum."""
    members = {name: OwnKey.at(tmp_path / name / "identity.key").public.text for name in NAMES[:3]}
    file, signer = tmp_path / "roster", OwnKey(bytes(32))
    file.write_bytes(Roster(federation="south", members=members).signed(signer.sign))
    strict = ("--roster", str(file), "--roster-key", signer.public.text)
    athens, delos = Holder(tmp_path, "athens"), Holder(tmp_path, "delos", options=strict)
    try:
        for one in (athens, delos):
            one.serve()
        with federation(tmp_path, keys(athens, delos), (athens, delos), NAMES, HERE="3", ROUNDS="4") as fleet:
            refused = "is not on the key holder's list"
            fleet.until("one refuses", lambda: refused in str(fleet.run()["waits_for"]), 60)
            fleet.participants["paris"].kill()
            revoked = Process("revoke", ["revoke", str(fleet.store), "paris"], tmp_path).start()
            assert revoked.wait(60) == 0, revoked.said()
            fleet.finishes(100)
    finally:
        athens.kill()
        delos.kill()
