"""An encrypted sum between real processes: the simulation's digest, whoever is killed; and no key holder, no number."""

import http.client
import json
import os
import random
import signal
import ssl
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fleet.key_holders import MORTAL, Holder, decided, mortal
from fleet.processes import Fleet, Process, simulated
from koinon.fleet.coordinator.key_holder import KeyHolder, Silent
from koinon.fleet.wire.encrypted_terms import KEY, SUM, TERMS, HolderLink
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.secure_sum.roster import Roster

pytest.importorskip("tenseal", reason="needs koinon[he]")

APP = Path(__file__).parent / "encrypted_app.py"
NAMES = ("lyon", "metz", "nice", "paris")


@contextmanager
def federation(
    folder: Path, holder: Holder, *, options: tuple[str, ...] = (), parties: tuple[str, ...] = NAMES, **environment: str
) -> Iterator[Fleet]:
    """Yield a coordinator with a key holder, and its parties at work."""
    environment["HOLDER"] = holder.key
    serve = ("--stay", "--keyholder", holder.link, *options)
    with Fleet(folder, APP, tls=True, serve=serve, environment=environment) as fleet:
        fleet.serve()
        for name in parties:
            fleet.join(name)
        yield fleet


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    """A key holder that serves."""
    one = Holder(tmp_path)
    one.serve()
    yield one
    one.kill()


def receipts(folder: Path) -> list[dict[str, Any]]:
    """Return the receipts that a party has."""
    (noted,) = (folder / "receipts").iterdir()
    return [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]


@pytest.mark.parametrize("spoiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_key_holder_decrypts_the_sum_of_the_simulation_whoever_dies(
    spoiled: bool, tmp_path: Path, holder: Holder
) -> None:
    with federation(tmp_path, holder, ROUNDS="6") as fleet:
        fleet.reaches(1, 60)
        holder.kill()
        mortal(holder, holder.store, 13)  # of its changes the one after which its answer would leave
        assert holder.start().wait(60) == -signal.SIGKILL, holder.said()
        assert decided(holder, "answered.json") != decided(holder, "released.json")
        holder.environment["DIES_AT"] = "0"
        if spoiled:  # as it is after a sum that was none: this number is over, under whatever request
            numbers = decided(holder, "answered.json")
            rounds = {run: [number, "0" * 64] for run, number in numbers.items()}
            (holder.store / "answered.json").write_text(json.dumps({"format": 1, "rounds": rounds}))
        fleet.participants["lyon"].kill()
        fleet.until("the run says what it waits for", lambda: "key holder" in str(fleet.run()["waits_for"]), 30)
        fleet.coordinator.kill()
        holder.serve()
        fleet.serve()
        fleet.participants["lyon"].start()
        digest = fleet.finishes(100)
        assert all(row["cohort"] == 4 and not row["lost"] for row in fleet.run()["history"])
        assert ("is asked for anew" in fleet.coordinator.said(ever=True)) is spoiled
        fleet.until("paris has it all", lambda: len(receipts(tmp_path / "paris")) == 6, 30)
        (blinds,) = fleet.store.glob("runs/*/blinds.key")
        assert stat.S_IMODE(blinds.stat().st_mode) == 0o600
    assert digest == simulated(APP, tmp_path, (), {"HOLDER": holder.key, "ROUNDS": "6"})
    for receipt in receipts(tmp_path / "paris"):
        assert receipt["aggregate"]
        assert [entry["commit"]["weight"] for entry in receipt["train"]] == [1] * 4


@pytest.mark.parametrize("noise", [{}, {"NOISE": "1"}])
def test_a_draw_of_too_few_is_void_as_in_simulation(noise: dict[str, str], tmp_path: Path, holder: Holder) -> None:
    """Under noise nobody may take the place of one that was not drawn, so the run would wait for ever."""
    coins = {"COINS": "1", "ROUNDS": "8", **noise}
    with federation(tmp_path, holder, parties=(), **coins) as fleet:
        for count, name in enumerate(NAMES, 1):  # a coin is that of a place among the members
            fleet.join(name)
            fleet.until(f"{count} have joined", lambda count=count: len(fleet.run()["clients"]) == count, 30)
        digest = fleet.finishes(60)
        void = [row["void"]["train"] for row in fleet.run()["history"] if "void" in row]
    assert 0 < len(void) < 8
    assert all(why.endswith("drawn, and the sum takes 3: nobody was asked") for why in void)
    assert digest == simulated(APP, tmp_path, (), {"HOLDER": holder.key, **coins})


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["coordinator", "lyon", "keyholder"])
def test_who_dies_and_comes_back_changes_nothing(victim: str, tmp_path: Path, holder: Holder) -> None:
    deaths, draw = 12, random.Random(7)
    rounds = str(4 + 2 * deaths)
    with federation(tmp_path, holder, ROUNDS=rounds) as fleet:
        fleet.reaches(1, 60)
        process = {"coordinator": fleet.coordinator, "keyholder": holder, **fleet.participants}[victim]
        process.kill()
        for _ in range(deaths):
            mortal(process, tmp_path / victim, draw.randint(1, 40))
            assert process.start().wait(60) == -signal.SIGKILL, f"{victim} ended by itself\n{process.said()}"
        process.environment["DIES_AT"] = "0"
        process.start()
        digest = fleet.finishes(200)
        assert all(not row["lost"] and not row["refused"] for row in fleet.run()["history"])
    assert digest == simulated(APP, tmp_path, (), {"HOLDER": holder.key, "ROUNDS": rounds})


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", [1, 3, 6, 12])
def test_who_dies_for_good_at_any_step_is_left_out(dies_at: int, tmp_path: Path, holder: Holder) -> None:
    with federation(tmp_path, holder, parties=NAMES[1:], HERE="3", LONGEST="4", ROUNDS="40") as fleet:
        own = {"PYTHONPATH": os.pathsep.join([MORTAL, fleet.coordinator.environment["PYTHONPATH"]])}
        own |= {"DIES_AT": str(dies_at), "DIES_UNDER": str(tmp_path / "lyon" / "states")}
        assert fleet.join("lyon", environment=own).wait(60) == -signal.SIGKILL, fleet.story()
        fleet.finishes(120)
        fleet.until("paris has it all", lambda: len(receipts(tmp_path / "paris")) == 40, 30)
        for receipt in receipts(tmp_path / "paris"):
            made = {entry["name"] for entry in receipt["train"] if entry["reason"] is None}
            assert len(made) >= 3, "whoever was there"
        assert made == set(NAMES[1:])


@pytest.mark.slow
def test_who_is_not_on_the_key_holders_list_is_in_no_sum(tmp_path: Path) -> None:
    members = {name: OwnKey.at(tmp_path / name / "identity.key").public.text for name in NAMES[:3]}
    file, signer = tmp_path / "roster", OwnKey(bytes(32))
    file.write_bytes(Roster(federation="south", members=members).signed(signer.sign))
    one = Holder(tmp_path, options=("--roster", str(file), "--roster-key", signer.public.text))
    one.serve()
    try:
        with federation(tmp_path, one, HERE="3", ROUNDS="4") as fleet:
            refused = "is not on the key holder's list"
            fleet.until("the key holder refuses", lambda: refused in str(fleet.run()["waits_for"]), 60)
            fleet.participants["paris"].kill()
            revoked = Process("revoke", ["revoke", str(fleet.store), "paris"], tmp_path).start()
            assert revoked.wait(60) == 0, revoked.said()
            fleet.finishes(100)
            fleet.until("lyon has it all", lambda: len(receipts(tmp_path / "lyon")) == 4, 30)
    finally:
        one.kill()
    for receipt in receipts(tmp_path / "lyon"):
        made = {entry["name"] for entry in receipt["train"] if entry["reason"] is None}
        assert len(made) >= 3
        assert made <= set(NAMES[:3])


def test_another_key_holder_is_waited_for_and_not_believed(tmp_path: Path, holder: Holder) -> None:
    other = Holder(tmp_path, "other")
    other.serve()
    key, link = holder.key, other.link
    try:
        with Fleet(tmp_path, APP, tls=True, serve=("--keyholder", link), environment={"HOLDER": key}) as fleet:
            fleet.serve()
            for name in NAMES:
                fleet.join(name)
            said = f"the key holder of the app, whose key is {key}"
            fleet.until("the run waits", lambda: said in str(fleet.run()["waits_for"]), 60)
            assert fleet.rounds() <= 0
    finally:
        other.kill()


def test_nobody_serves_what_nobody_can_decrypt(tmp_path: Path, holder: Holder) -> None:
    with Fleet(tmp_path, APP, environment={"HOLDER": holder.key}) as fleet:
        assert fleet.coordinator.start().wait(60) == 2
        assert "--keyholder names 0 of 1." in fleet.coordinator.said()


def test_a_key_holder_opens_to_its_link_alone(holder: Holder) -> None:
    link = HolderLink.parse(holder.link)
    assert KeyHolder(link).terms().key.fingerprint.hex() == holder.key
    assert KeyHolder(link).terms().roster is None
    with pytest.raises(Silent, match="its certificate is of"):
        KeyHolder(replace(link, authority="ab" * 32)).terms()
    for path in (KEY, TERMS, SUM):
        with pytest.raises(Refusal, match="needs the token"):
            KeyHolder(replace(link, token="5e" * 32))._call("POST" if path == SUM else "GET", path, b"")
    with pytest.raises(Refusal, match="begins with"):
        KeyHolder(link).sum(b"anything", 10)
    head = {"Authorization": f"Bearer {link.token}", "Content-Length": str(2 << 30)}
    for method, path, status in (("POST", SUM, 413), ("GET", SUM, 405), ("GET", "/v1/runs", 404)):
        at = http.client.HTTPSConnection(
            urlsplit(link.url).netloc, context=ssl._create_unverified_context(), timeout=10
        )
        with closing(at):
            at.request(method, path, headers=head if method == "POST" else {})
            assert at.getresponse().status == status
