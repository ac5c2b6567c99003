"""A network that fails: requests repeated, reordered, torn, lost; a cable pulled. The run ends as if nothing had been."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.faults.network import Namespace
from fleet.faults.proxy import Fault, FaultyProxy
from fleet.faults.wires import Wire, noisy
from fleet.processes import Fleet, through

ROUNDS = 20
CHANGES = (f"stop.rounds={ROUNDS}",)
CHUNKED = ("--stay", "--chunk-bytes", "4096")
LARGE = {"BALLAST": "4000"}  # four chunks


def check_whole(fleet: Fleet, rounds: int) -> None:
    """Assert that every round has every client's update."""
    history = fleet.run()["history"]
    assert [row["round"] for row in history] == list(range(1, rounds + 1))
    assert all(row["cohort"] == len(NAMES) and not row["lost"] and not row["refused"] for row in history), history


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_requests_repeated_reordered_torn_and_lost(
    seed: int, app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    with (
        Fleet(tmp_path, app, changes=CHANGES, serve=CHUNKED, environment=LARGE) as fleet,
        FaultyProxy(fleet.port, first={"/blobs": Fault.CORRUPT_ANSWER}, seed=seed, probability=0.12) as proxy,
    ):
        fleet.serve()
        for name in NAMES:
            fleet.join(name, link=through(fleet.invite(name), proxy.port))
        digest = fleet.finishes(200)
        check_whole(fleet, ROUNDS)
    assert set(proxy.seen) == set(Fault), proxy.seen
    assert digest == undisturbed(*CHANGES, **LARGE)


@pytest.mark.parametrize(
    ("large", "own"), [(False, ()), (True, ("/blobs", "/update/0", "/commit"))], ids=["whole", "chunks"]
)
def test_the_first_answer_to_every_call_is_lost(
    large: bool, own: tuple[str, ...], app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    calls = ("/enrol", "/challenge", "/session", "/join", "/update", "/work", "/runs", *own)
    serve, environment = (CHUNKED, LARGE) if large else (("--stay",), {})
    with (
        Fleet(tmp_path, app, changes=CHANGES, serve=serve, environment=environment) as fleet,
        FaultyProxy(fleet.port, first=dict.fromkeys(calls, Fault.DROP_ANSWER)) as proxy,
    ):
        fleet.serve()
        for name in NAMES:
            fleet.join(name, link=through(fleet.invite(name), proxy.port))
        digest = fleet.finishes(100)
        check_whole(fleet, ROUNDS)
        assert not proxy.first, "some call was never made"
    assert digest == undisturbed(*CHANGES, **environment)


@pytest.mark.parametrize("seed", [pytest.param(4, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)])
def test_updates_of_one_chunk_repeated_reordered_torn_and_lost(
    seed: int, app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    with (
        Fleet(tmp_path, app, changes=CHANGES, serve=("--stay",)) as fleet,
        FaultyProxy(fleet.port, seed=seed, probability=0.12) as proxy,
    ):
        fleet.serve()
        for name in NAMES:
            fleet.join(name, link=through(fleet.invite(name), proxy.port))
        digest = fleet.finishes(200)
        check_whole(fleet, ROUNDS)
    assert digest == undisturbed(*CHANGES)


@pytest.mark.slow
def test_a_wire_that_flips_bits_and_breaks_off_under_tls(
    app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    with (
        Fleet(tmp_path, app, changes=CHANGES, tls=True, serve=("--stay",)) as fleet,
        Wire(fleet.port, noisy(5, 0.05)) as wire,
    ):
        fleet.serve()
        for name in NAMES:
            fleet.join(name, link=through(fleet.invite(name), wire.port))
        digest = fleet.finishes(200)
        check_whole(fleet, ROUNDS)
    assert digest == undisturbed(*CHANGES)


@pytest.mark.slow  # test_faults_state.py and test_faults_slow.py: a wire that is cut, a party that is silent
def test_a_participant_behind_a_pulled_cable_is_waited_for(
    app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    with Namespace(1) as apart, Fleet(tmp_path, app, host=apart.host, changes=CHANGES, serve=("--stay",)) as fleet:
        fleet.serve()
        fleet.join("lyon", prefix=apart.prefix)
        for name in NAMES[1:]:
            fleet.join(name)
        fleet.reaches(2, 60)
        apart.down()
        fleet.until("somebody is waited for", lambda: "lyon" in (fleet.run()["waits_for"] or ""), 20)
        stood = fleet.rounds()
        time.sleep(6.0)  # longer than any round: TCP sends into nothing meanwhile
        assert fleet.rounds() <= stood + 1
        assert fleet.participants["lyon"].alive
        apart.up()
        digest = fleet.finishes(150)
        check_whole(fleet, ROUNDS)
    assert digest == undisturbed(*CHANGES)
