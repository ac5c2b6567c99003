"""A made-up run and comparison for the report's tests, and the comparison with golden files.

``KOINON_GOLDEN=write python -m pytest tests/unit -k report`` writes the golden files anew.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from koinon.core.events import RoundRecord
from koinon.report.history import History
from koinon.report.summary import (
    ClientRow,
    Comparison,
    ComparisonRow,
    DataSource,
    Judgement,
    Kind,
    RunSummary,
    Spread,
)

HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "Long Beach VA")
_GOLDEN = Path(__file__).parents[1] / "golden"


def record(number: int, refused: dict[str, tuple[str, ...]] | None = None) -> RoundRecord:
    """A round whose figures get better as rounds go by."""
    gap = 0.3 * math.exp(-number / 5)
    figures = {"train_loss": 0.4 + gap, "train_accuracy": 0.83 - gap}
    for name, value, sign in (("loss", 0.45 + gap, 1), ("accuracy", 0.8 - gap, -1)):
        figures |= {name: value, f"{name}_mean": value, f"{name}_worst": value + sign * 0.1, f"{name}_spread": 0.05}
    return RoundRecord(number, 4, refused or {}, figures, 0.625 if number == 1 else 0.021)


def history(rounds: int = 6, refused: str = "Switzerland") -> History:
    """A history in which one client is refused in rounds 3 and 4."""
    leaves = ("params/dense/bias", "params/dense/kernel")
    return History([record(i, {refused: leaves} if i in (3, 4) else None) for i in range(1, rounds + 1)])


def run_summary(name: str = "Switzerland", rounds: int = 6) -> RunSummary:
    """A run; ``name`` stands wherever somebody else chose the text."""
    clients = tuple(
        ClientRow(name=client, examples=20, figures={"loss": 0.5, "accuracy": 0.8}, refused=leaves)
        for client, leaves in ((HOSPITALS[0], ()), (name, (name,)))
    )
    return RunSummary(
        title=name, history=history(rounds, name), stopped=f"converged: {name} has not improved", digest="9f2c" * 16,
        seconds=1.5, settings={name: name}, clients=clients,
    )  # fmt: skip


def comparison(name: str = "Switzerland", seeds: int = 3) -> Comparison:
    """Two hospitals alone, together and pooled; the second is called ``name`` and has one AUC short."""

    def judged(value: float, missing: bool = False) -> Judgement:
        values = tuple(value + 0.01 * seed for seed in range(seeds))
        return Judgement(accuracy=Spread(values), auc=Spread((math.nan, *values[1:]) if missing else values))

    names = ("Basel" if name == HOSPITALS[0] else HOSPITALS[0], name)
    homes = {names[0]: judged(0.8), names[1]: judged(0.9, missing=True)}
    rows = (
        *(ComparisonRow(name=n, kind=Kind.ALONE, own={n: homes[n]}, everyone=judged(0.7)) for n in names),
        ComparisonRow(name="Together", kind=Kind.TOGETHER, own=homes, everyone=judged(0.81)),
        ComparisonRow(name="Pooled", kind=Kind.POOLED, own=homes, everyone=judged(0.82)),
    )
    source = DataSource(
        name=name, authors="A. Author", licence="CC BY 4.0", address="https://example.org/data", party="hospital"
    )
    runs = tuple(run_summary(name, rounds=5 + seed) for seed in range(seeds))
    return Comparison(
        title=name, rows=rows, seeds=tuple(range(seeds)), runs=runs, source=source, seconds=12.0, notes=(name,)
    )


def matches_golden(file: str, text: str) -> bool:
    """Return whether ``text`` is what the golden file holds; write the file first where that is asked for."""
    path = _GOLDEN / file
    if os.environ.get("KOINON_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8") == text
