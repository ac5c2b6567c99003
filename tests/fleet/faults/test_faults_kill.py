"""kill -9 of a coordinator and its participants at seeded moments: nothing that was finished is lost."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.faults.app import NAMES
from fleet.processes import Fleet

STEP = {"STEP_SECONDS": "0.01"}
LONGEST_LIFE_S = 1.5


def survives(kills: int, seed: int, fleet: Fleet) -> None:
    """Kill somebody so many times and start them again, everybody as often. No round is ever taken back."""
    draw, rounds = random.Random(seed), 0
    everybody = [fleet.coordinator, *fleet.participants.values()]
    victims = [everybody[i % len(everybody)] for i in range(kills)]
    draw.shuffle(victims)
    for victim in victims:
        time.sleep(draw.uniform(0.0, LONGEST_LIFE_S))
        seen = fleet.rounds()  # -1 while the coordinator starts
        assert seen >= rounds or seen == -1, f"{rounds} rounds were committed, and {seen} are left"
        rounds = max(rounds, seen)
        assert victim.alive, f"{victim.name} ended before it was killed\n{fleet.story()}"
        victim.kill()
        victim.start()


@pytest.mark.parametrize(
    ("algorithm", "kills", "rounds"),
    [
        ("scaffold", 8, 30),  # keeps state on the clients
        pytest.param("fedavg", 54, 220, marks=pytest.mark.slow),
        pytest.param("scaffold", 54, 220, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_seeded_moments_ends_as_an_undisturbed_one(
    algorithm: str, kills: int, rounds: int, app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    changes = (f"stop.rounds={rounds}",)
    with Fleet(
        tmp_path, app, changes=changes, serve=("--stay",), environment={**STEP, "ALGORITHM": algorithm}
    ) as fleet:
        fleet.serve()
        for name in NAMES:
            fleet.join(name)
        fleet.reaches(1, 60)
        survives(kills, 20, fleet)
        fleet.until("the coordinator answers", fleet.answers, 30)
        assert fleet.run()["state"] != "finished", "the run was over before the last kill: make it longer"
        digest = fleet.finishes(120)
        history = fleet.run()["history"]
    assert [row["round"] for row in history] == list(range(1, rounds + 1))
    assert all(row["cohort"] == 3 and not row["lost"] and not row["refused"] for row in history)
    assert digest == undisturbed(*changes, ALGORITHM=algorithm)


def test_updates_that_were_committed_outlive_the_coordinator(
    app: Path, tmp_path: Path, undisturbed: Callable[..., str]
) -> None:
    changes = ("stop.rounds=2",)
    with Fleet(tmp_path, app, changes=changes, serve=("--stay",)) as fleet:
        fleet.serve()
        lyon = fleet.join("lyon")
        fleet.until("lyon has joined", lambda: "Joined" in lyon.said(), 30)
        lyon.signal(signal.SIGSTOP)
        for name in NAMES[1:]:
            fleet.join(name)
        fleet.until("two updates are there", lambda: arrived(fleet) == 2, 60)
        fleet.coordinator.kill()
        for name in NAMES[1:]:
            fleet.participants[name].signal(signal.SIGSTOP)  # nobody sends anything again
        fleet.serve()
        fleet.until("the round is open again", lambda: fleet.run()["open"], 30)
        assert arrived(fleet) == 2
        for participant in fleet.participants.values():
            participant.signal(signal.SIGCONT)
        digest = fleet.finishes(60)
    assert digest == undisturbed(*changes)


def arrived(fleet: Fleet) -> int:
    """Return how many updates of the open stage are there."""
    return int((fleet.run()["open"] or {"arrived": 0})["arrived"])
