"""Robust rules between institutions: the bits of the simulation, and no single party can end a run.

Where a party's update cannot be added, or the one by whom all are measured is away, the run rests and says so.
"""

from pathlib import Path

import pytest

from fleet.processes import Fleet, simulated
from fleet.robust_app import NAMES

APP = Path(__file__).parent / "robust_app.py"


def started(tmp_path: Path, rule: str, *names: str, **environment: str) -> Fleet:
    fleet = Fleet(tmp_path, APP, environment={"RULE": rule, **environment})
    fleet.serve()
    for name in names:
        fleet.join(name, options=("--data", name))
    return fleet


def rests(fleet: Fleet, *words: str) -> None:
    fleet.until(f"it rests for {words}", lambda: all(word in (fleet.run()["waits_for"] or "") for word in words), 30)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["Bucketed", "Krum"])
def test_a_robust_round_between_processes_is_that_of_the_simulation(rule: str, tmp_path: Path) -> None:
    with started(tmp_path, rule, *NAMES) as fleet:
        assert fleet.finishes(60) == simulated(APP, tmp_path, (), {"RULE": rule})


def test_an_update_that_is_none_rests_the_run_until_its_party_is_mended(tmp_path: Path) -> None:
    with started(tmp_path, "Krum", *NAMES[:4]) as fleet:
        broken = fleet.join("brest", options=("--data", "brest"), environment={"BROKEN": "yes"})
        rests(fleet, "1 more client", "1 of them with what cannot be added", "brest (its update cannot be added)")
        assert fleet.rounds() == 0
        broken.kill()
        del broken.environment["BROKEN"]
        broken.start()
        assert fleet.finishes(60) == simulated(APP, tmp_path, (), {"RULE": "Krum"})


def test_a_run_rests_while_the_party_that_all_are_measured_by_is_away(tmp_path: Path) -> None:
    others = [name for name in NAMES if name != "metz"]
    with started(tmp_path, "FLTrust", *others) as fleet:
        fleet.join("guest", options=("--data", "metz"))
        rests(fleet, "the party 'metz' to join")
        trusted = fleet.join("metz", options=("--data", "metz"))
        fleet.reaches(1, 60)
        trusted.kill()
        rests(fleet, "by whose update all others are measured")
        trusted.start()
        fleet.finishes(60)


@pytest.mark.slow
def test_where_a_draw_is_too_small_for_the_rule_others_take_part(tmp_path: Path) -> None:
    with started(tmp_path, "Krum", *NAMES, COINS="yes") as fleet:
        fleet.finishes(60)
        assert {row["cohort"] for row in fleet.run()["history"]} <= {0, len(NAMES)}, "of five, Krum(1) needs five"


@pytest.mark.slow
def test_a_round_in_which_nothing_can_be_added_ends_the_run_with_its_last_model(tmp_path: Path) -> None:
    with started(tmp_path, "Mean") as fleet:
        for name in NAMES:
            fleet.join(name, options=("--data", name), environment={"BROKEN": "yes"})
        run = fleet.until("it has ended", lambda: fleet.run()["stopped"] and fleet.run(), 60)
        assert run["state"] == "finished"
        assert run["stopped"].startswith("diverged: All 5 clients of the round were refused")
