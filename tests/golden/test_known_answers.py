"""Known answers: three rounds of each algorithm on the plain loop, to six digits.

``KOINON_GOLDEN=write python -m pytest tests/golden`` writes them anew; review the difference as code.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest

import koinon as kn
import linear
from koinon import tree

GOLDEN = Path(__file__).parent / "algorithms.txt"
WORK: dict[str, Any] = {"epochs": 2, "batch_size": 2}
ALGORITHMS = {
    "fedavg": kn.fedavg(kn.sgd(0.3), **WORK),
    "fedavg, momentum on both sides": kn.fedavg(kn.momentum(0.1), server_momentum=0.5, **WORK),
    "fedavg, adam and a cosine": kn.fedavg(kn.adam(0.1), schedule=kn.Cosine(3, warm_up=1), **WORK),
    "fedavg, three steps of two clients": kn.fedavg(kn.sgd(0.3), steps=3, batch_size=2, cohort=2),
    "fedavg, clip and int8": kn.fedavg(kn.sgd(0.3), channel=(kn.Clip(0.5), kn.Quantise(8)), **WORK),
    "fedsgd": kn.fedsgd(0.3),
    "fedprox": kn.fedprox(0.5, kn.sgd(0.3), **WORK),
    "fedadagrad": kn.fedadagrad(kn.sgd(0.3), **WORK),
    "fedadam": kn.fedadam(kn.sgd(0.3), server_learning_rate=0.1, **WORK),
    "fedyogi": kn.fedyogi(kn.sgd(0.3), server_learning_rate=0.1, **WORK),
    "scaffold": kn.scaffold(kn.sgd(0.3), **WORK),
    "scaffold of two clients": kn.scaffold(kn.sgd(0.3), cohort=2, **WORK),
}


def answers(name: str) -> list[str]:
    """Return a heading, every round's training loss, and the final parameters."""
    run = linear.train(ALGORITHMS[name], seed=7)
    rounds = [f"  round {r.round} of {r.cohort} clients: loss {r.figures['train_loss']:.5e}" for r in run.history]
    params = [f"  {leaf}: {' '.join(f'{x:.5e}' for x in value.reshape(-1))}" for leaf, value in tree.items(run.params)]
    return [name, *rounds, *params]


def words(lines: list[str]) -> list[Any]:
    """Return words as they are, and figures as numbers."""
    return [float(word) if re.fullmatch(r"-?\d\.\d+e[-+]\d+", word) else word for word in " ".join(lines).split()]


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    if os.environ.get("KOINON_GOLDEN") == "write":
        GOLDEN.write_text("".join(f"{line}\n" for name in ALGORITHMS for line in answers(name)), encoding="utf-8")
    sections: dict[str, list[str]] = {}
    for line in GOLDEN.read_text(encoding="utf-8").splitlines():
        sections.setdefault(line if not line.startswith(" ") else next(reversed(sections)), []).append(line)
    return sections


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_figures_are_the_known_ones(name: str, known: dict[str, list[str]]) -> None:
    wanted = [pytest.approx(word, rel=1e-5) if isinstance(word, float) else word for word in words(known[name])]
    assert words(answers(name)) == wanted


def test_every_known_answer_is_asked_for(known: dict[str, list[str]]) -> None:
    assert list(known) == list(ALGORITHMS)
