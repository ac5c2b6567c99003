"""Parties that are gone for good with a sum still closed: its round is void, and the run goes on without them."""

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.processes import Fleet, Process, simulated
from fleet.void_app import NAMES

APP = Path(__file__).parent / "void_app.py"
MORTAL, ODD = (str(Path(__file__).parent / "faults" / kind) for kind in ("mortal", "odd"))
_CHANGES = 3  # of the disk, when a record is written: its partial file is removed, made and renamed
_RECORDS = 7  # a round: keys, shares, what was delivered, masked, signed, opened, done
_MASKED = 4


def dying(fleet: Fleet, name: str, number: int) -> dict[str, str]:
    """Return the environment in which a party dies in a round, its vector sent and nothing of the survivors signed."""
    record = fleet.folder / name / "states" / f".{fleet.run()['run']}.train.secure-sum"
    at = _CHANGES * (_RECORDS * (number - 1) + _MASKED) + 1
    path = os.pathsep.join([MORTAL, *sys.path])
    return {"PYTHONPATH": path, "DIES_UNDER": str(record), "DIES_AT": str(at)}


def odd(how: str) -> dict[str, str]:
    """Return the environment of a process that is odd."""
    return {"PYTHONPATH": os.pathsep.join([ODD, *sys.path]), "ODD": how}


@contextmanager
def six(
    folder: Path, number: int, victims: tuple[str, ...], coordinator: str = "", **environment: str
) -> Iterator[Fleet]:
    """Serve and let six parties join, of whom some die in a round; the ``coordinator`` may be odd."""
    with Fleet(folder, APP, serve=("--stay",), environment=environment) as fleet:
        fleet.coordinator.environment.update(odd(coordinator))
        fleet.serve()
        fleet.admin("POST", f"/v1/admin/runs/{fleet.run()['run']}/pause", {})
        dead = [fleet.join(name, environment=dying(fleet, name, number)) for name in victims]
        joined(fleet, len(victims))  # they are in every round
        for name in NAMES:
            if name not in victims:
                fleet.join(name)
        joined(fleet, len(NAMES))
        fleet.admin("POST", f"/v1/admin/runs/{fleet.run()['run']}/resume", {})
        for process in dead:
            assert process.wait(60) == -signal.SIGKILL, f"{process.name} has ended by itself\n{fleet.story()}"
        yield fleet


def joined(fleet: Fleet, count: int) -> None:
    fleet.until(f"{count} have joined", lambda: len(fleet.run()["clients"]) == count, 60)


def verified(folder: Path, store: str) -> str:
    one = Process(f"verify-{store}", ("verify", store), folder).start()
    assert one.wait(60) == 0, one.said()
    return one.said()


def receipts(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    """Return what a party was told of each round, once it has ended."""
    assert fleet.participants[name].wait(60) == 0, fleet.story()
    (noted,) = (fleet.folder / name / "receipts").iterdir()
    return [json.loads(line)["receipt"] for line in noted.read_text().splitlines()]


def check_void(row: dict[str, Any], silent: str = "nice, tours") -> None:
    """Check a round that six began and two did not see to its end."""
    why = f"{silent} fell silent before the sum was opened, which takes 5 clients: nothing of it is known"
    assert row["void"]["train"] == why
    assert row["cohort"] == 6
    own = "fell silent before the sum was opened"
    assert row["lost"] == {name: own if name in silent else why for name in NAMES}


def test_two_who_vanish_before_the_sum_is_open_cost_its_round_and_nothing_else(tmp_path: Path) -> None:
    with six(tmp_path, 3, ("nice", "tours")) as fleet:
        fleet.finishes(120)
        run, said = fleet.run(), fleet.coordinator.said()
        told = receipts(fleet, "paris")
    check_void(run["history"][2])
    assert [row["cohort"] for row in run["history"][2:]] == [6, 4, 4, 4]
    assert [row["round"] for row in run["history"] if "loss" in row] == [3, 6], "four judge the model that stayed"
    assert "no update: nice, tours fell silent" in said
    for number, receipt in enumerate(told, 1):
        assert (receipt["aggregate"] is None) == ("void" in receipt) == (number == 3)
    assert told[2]["model_after"] == told[2]["model_before"] != told[3]["model_after"]
    assert all(entry["commit"] and entry["reason"] for entry in told[2]["train"]), "six have sent, and none counts"
    for store in ("coordinator", "paris"):
        assert "train of round 3: void, counts nobody, and the model stayed; in round 3: nice, tours" in verified(
            tmp_path, store
        )
    for path in (tmp_path / "paris" / "states").iterdir():
        assert path.stat().st_size < 1000, "shares of others' secrets are not kept beyond their round"


def test_a_sum_is_not_begun_before_enough_are_here_though_the_schedule_would(tmp_path: Path) -> None:
    """Of two that have joined no sum is made, and masks know who is asked: the round would have waited for ever."""
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"HERE": "2", "ROUNDS": "2"}) as fleet:
        fleet.serve()
        for name in NAMES[:2]:
            fleet.join(name)
        joined(fleet, 2)
        assert fleet.run()["round"] == 0
        for name in NAMES[2:]:
            fleet.join(name)
        fleet.finishes(60)
        assert all(row["cohort"] >= 3 and "void" not in row for row in fleet.run()["history"])


def test_draws_of_those_who_were_revoked_do_not_use_up_a_run(tmp_path: Path) -> None:
    """Three of six are left, and three are drawn: of 20 draws 19 have somebody revoked in them, and of two no sum is made."""
    given = {"HERE": "3", "DRAWN": "3", "ROUNDS": "4"}
    with Fleet(tmp_path, APP, serve=("--stay",), environment=given) as fleet:
        fleet.serve()
        fleet.admin("POST", f"/v1/admin/runs/{fleet.run()['run']}/pause", {})
        for name in NAMES:
            fleet.join(name)
        joined(fleet, len(NAMES))
        for client in fleet.run()["clients"][::2]:
            fleet.admin("POST", f"/v1/admin/clients/{client['client']}/revoke", {})
        fleet.admin("POST", f"/v1/admin/runs/{fleet.run()['run']}/resume", {})
        fleet.until("four rounds are over", lambda: len(fleet.run()["history"]) == 4, 60)
        # the first may have been drawn before anybody was revoked
        assert not any("train" in row.get("void", {}) for row in fleet.run()["history"][1:])


def test_a_draw_of_too_few_is_void_as_in_simulation(tmp_path: Path) -> None:
    coins = {"HERE": "6", "COIN": "0.4", "ROUNDS": "12"}
    with Fleet(tmp_path, APP, serve=("--stay",), environment=coins) as fleet:
        fleet.serve()
        for count, name in enumerate(NAMES, 1):  # a coin is that of a place among the members
            fleet.join(name)
            joined(fleet, count)
        digest = fleet.finishes(60)
        history = fleet.run()["history"]
    one = Process("simulation", ("run", str(APP), "--out", "kept"), tmp_path, environment=coins).start()
    assert one.wait(60) == 0, one.said()
    assert digest in one.said()
    journal = sqlite3.connect(f"file:{tmp_path / 'kept' / 'journal.sqlite'}?mode=ro", uri=True)
    with closing(journal):
        rows = [json.loads(row) for (row,) in journal.execute("SELECT record FROM rounds WHERE record IS NOT NULL")]
    told = [(row["cohort"], row.get("void"), row["lost"]) for row in rows]
    assert told == [(row["cohort"], row.get("void"), row["lost"]) for row in history]
    assert 0 < sum(void is not None for _, void, _ in told) < 12


def test_who_says_why_it_opens_no_share_is_not_called_silent(tmp_path: Path) -> None:
    """Two of six send wrong codes, so the four others refuse: the void round has their word, and does not wait for its deadline.

    Nor is a run used up so: after three of them it rests.
    """
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"HERE": "6", "ROUNDS": "5", "LONGEST": "60"}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name, environment=odd("lying") if name in ("nice", "tours") else None)
        fleet.until("the round is void", lambda: fleet.run()["history"], 40)
        row = fleet.run()["history"][0]
        fleet.until("the run rests", lambda: "without them" in (fleet.run()["waits_for"] or ""), 40)
        assert len(fleet.run()["history"]) == 3
    assert row["void"]["train"] == (
        "lyon, metz, paris, rome did not go on and said why before the sum was opened, which takes 5 clients: nothing of it is known"
    )
    for name in ("lyon", "metz", "paris", "rome"):
        assert "Codes that are not their senders' own: c-" in row["lost"][name]
        assert "No share is opened" in row["lost"][name]


def test_who_refuses_after_it_was_killed_is_not_called_silent_either(tmp_path: Path) -> None:
    unjudged = {"HERE": "6", "ROUNDS": "1", "LONGEST": "20", "SIZES": "1 1 1 1 1 1"}
    with Fleet(tmp_path, APP, serve=("--stay",), environment=unjudged) as fleet:
        fleet.serve()
        fleet.admin("POST", f"/v1/admin/runs/{fleet.run()['run']}/pause", {})
        lyon = fleet.join("lyon", environment=dying(fleet, "lyon", 1))
        for name in NAMES[1:]:
            fleet.join(name, environment=odd("lying") if name in ("nice", "tours") else None)
        joined(fleet, 6)
        fleet.admin("POST", f"/v1/admin/runs/{fleet.run()['run']}/resume", {})
        assert lyon.wait(60) == -signal.SIGKILL, fleet.story()
        lyon.environment["DIES_AT"] = "0"
        lyon.start()
        fleet.until("the round is void", lambda: fleet.run()["history"], 60)
        row = fleet.run()["history"][0]
    for name in ("lyon", "metz", "paris", "rome"):
        assert row["lost"][name].startswith("did not help to open the sum: "), row["lost"]


def test_a_round_that_the_schedules_quorum_voids_says_how_many_that_takes(tmp_path: Path) -> None:
    """Five of six would do for the masks, but all are asked for."""
    given = {"HERE": "6", "ROUNDS": "1", "QUORUM": "1.0", "SIZES": "1 1 1 1 1 1"}
    with Fleet(tmp_path, APP, serve=("--stay",), environment=given) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name, environment={"SPOILT": name} if name == "tours" else None)
        fleet.until("the round is void", lambda: fleet.run()["history"], 60)
        why = fleet.run()["history"][0]["void"]["train"]
    assert why.startswith("tours did not go on and said why before the sum was opened, which takes 6 clients")


def test_one_that_refuses_stops_no_sum_that_the_others_can_open(tmp_path: Path) -> None:
    """Five of six are enough. That the sixth is still waited for, a quarter of the least time, is for the sake of wrong codes."""
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"HERE": "6", "ROUNDS": "2"}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name, environment=odd("unwilling") if name == "tours" else None)
        fleet.finishes(60)
        assert [row.get("void") for row in fleet.run()["history"]] == [None, None]


def test_who_has_refused_is_not_called_silent_by_a_coordinator_that_starts_again(tmp_path: Path) -> None:
    """Each says so once. Another is silent, so the sum waits for its deadline, and the coordinator dies before that."""
    unjudged = {"HERE": "6", "ROUNDS": "1", "LONGEST": "8", "SIZES": "1 1 1 1 1 1"}
    with Fleet(tmp_path, APP, serve=("--stay",), environment=unjudged) as fleet:
        fleet.serve()
        for name, how in zip(NAMES, ("", "", "lying", "", "", "mute"), strict=True):
            fleet.join(name, environment=odd(how) if how else None)
        willing = ("lyon", "metz", "paris", "rome")
        told = fleet.coordinator.said
        fleet.until("they refuse", lambda: all(f"{name} cannot answer in round 1" in told() for name in willing), 60)
        fleet.coordinator.kill()
        fleet.serve()
        fleet.until("the round is void", lambda: fleet.run()["history"], 40)
        row = fleet.run()["history"][0]
    for name in willing:
        assert row["lost"][name].startswith("did not help to open the sum: "), row["lost"]
    assert row["lost"]["tours"] == "fell silent before the sum was opened"
    assert row["void"]["train"].startswith("tours fell silent, and lyon, metz, paris, rome did not go on and said why")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_coordinator_that_dies_as_it_gives_a_sum_up_gives_it_up_once(when: str, tmp_path: Path) -> None:
    with six(tmp_path, 3, ("nice", "tours"), coordinator=when) as fleet:
        assert fleet.coordinator.wait(60) == -signal.SIGKILL, fleet.story()
        fleet.coordinator.environment["ODD"] = ""
        fleet.serve()
        fleet.finishes(120)
        run = fleet.run()
        told = receipts(fleet, "paris")
    check_void(run["history"][2])
    assert [receipt["round"] for receipt in told if "void" in receipt] == [3]
    assert [row["cohort"] for row in run["history"][3:]] == [4] * 3
    for store in ("coordinator", "paris"):
        assert "train of round 3: void" in verified(tmp_path, store)


@pytest.mark.slow
def test_who_is_back_in_time_opens_the_sum_and_nothing_is_lost(tmp_path: Path) -> None:
    long = {"HERE": "6", "LONGEST": "60"}
    with six(tmp_path, 3, ("nice", "tours"), **long) as fleet:
        for name in ("nice", "tours"):
            fleet.participants[name].environment["DIES_AT"] = "0"
            fleet.participants[name].start()
        digest = fleet.finishes(60)
        assert not any("void" in row or row["lost"] for row in fleet.run()["history"])
    assert digest == simulated(APP, tmp_path, (), long)


@pytest.mark.slow
def test_after_three_void_rounds_the_run_rests_and_says_for_whom(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"HERE": "6", "LONGEST": "2"}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name, environment=odd("mute") if name in ("nice", "tours") else None)
        waits = fleet.until("it rests", lambda: "koinon resume" in str(fleet.run()["waits_for"]), 60)
        assert waits
        run = fleet.run()
        assert (run["round"], run["state"]) == (3, "waiting")
        assert run["waits_for"].startswith("nice, tours: without them round after round came to nothing.")
        for row in run["history"]:
            check_void(row)
        fleet.until("the log says so", lambda: "rests. It waits for nice, tours" in fleet.coordinator.said(), 10)
        fleet.admin("POST", f"/v1/admin/runs/{run['run']}/resume", {})
        fleet.until("it has tried once more, and rests again", lambda: fleet.rounds() == 4, 60)
        for client in fleet.run()["clients"]:
            if client["name"] in ("nice", "tours"):
                fleet.admin("POST", f"/v1/admin/clients/{client['client']}/revoke", {})
        fleet.until("nobody is waited for but new ones", lambda: "2 more clients" in str(fleet.run()["waits_for"]), 60)


def test_two_cannot_judge_under_masks_here_as_in_simulation(tmp_path: Path) -> None:
    few = {"SIZES": "1 8 1 7 1 1", "HERE": "6"}
    why = "SecureSum() adds up at least 3 clients, and 2 hold examples out: nobody judges the model"
    with Fleet(tmp_path, APP, serve=("--stay",), environment=few) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        assert fleet.finishes(60) == simulated(APP, tmp_path, (), few)
        run, said = fleet.run(), fleet.coordinator.said()
    assert [row.get("void") for row in run["history"]] == [None, None, {"evaluate": why}] * 2
    assert said.count(why) == 1


@pytest.mark.slow
def test_a_judge_that_is_gone_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"SIZES": "1 8 1 7 1 9", "LONGEST": "3"}) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        fleet.reaches(2, 60)
        fleet.participants["tours"].kill()
        fleet.finishes(120)
        history = fleet.run()["history"]
    why = "too few were here before the sum was opened, which takes 3 clients: nothing of it is known"
    assert history[-1]["void"] == {"evaluate": why}
    assert not any("train" in row.get("void", {}) for row in history)


@pytest.mark.slow
def test_a_round_is_finished_as_it_was_drawn_though_more_have_joined_before_a_restart(tmp_path: Path) -> None:
    """What is masked is agreed on for so many: with another number no key of the round would be right any more."""
    with Fleet(tmp_path, APP, serve=("--stay",), environment={"HERE": "3", "LONGEST": "60"}) as fleet:
        fleet.serve()
        for name in NAMES[:2]:
            fleet.join(name)
        joined(fleet, 2)
        third = fleet.join(NAMES[2])
        fleet.until("it is there", lambda: len(fleet.run()["clients"]) == 3, 60)
        third.signal(signal.SIGSTOP)
        fleet.until("a round waits for it", lambda: (fleet.run()["open"] or {}).get("attempt") == 1, 20)
        before = fleet.rounds()
        fleet.join(NAMES[3])
        joined(fleet, 4)
        assert fleet.rounds() == before
        fleet.coordinator.kill()
        fleet.serve()
        third.signal(signal.SIGCONT)
        fleet.finishes(120)
        history = fleet.run()["history"]
    assert not any("void" in row or row["lost"] for row in history)
    assert history[before]["cohort"] == 3
    assert history[-1]["cohort"] == 4
