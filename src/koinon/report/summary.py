"""What the report pages show, as values: ``RunSummary`` for one run, ``Comparison`` for alone, together, pooled.

``write_page(path, RunSummary(...) | Comparison(...))`` in ``page.py`` turns either into one HTML file;
``comparison_table`` and ``comparison_text`` in ``table.py`` show a comparison in a terminal.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from koinon.errors import ConfigurationError
from koinon.metrics import EXAMPLES
from koinon.report.history import History


@dataclass(frozen=True, kw_only=True)
class ClientRow:
    """One client after the last round."""

    name: str
    examples: int  # held out; 0 where it judged nothing
    figures: Mapping[str, float] = field(default_factory=dict)  # its own, over them: loss, accuracy, ...
    refused: tuple[str, ...] = ()  # the leaves its update was refused for


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One finished run."""

    title: str
    history: History
    stopped: str  # the reason, as the run gave it
    digest: str
    seconds: float  # wall time of the whole run
    settings: Mapping[str, str] = field(default_factory=dict)  # what was asked for, in words
    clients: tuple[ClientRow, ...] = ()  # after the last round; empty where nobody judged
    privacy: tuple[str, ...] = ()  # what is claimed, and on what conditions, a line each
    ledger: tuple[tuple[str, str, str], ...] = ()  # how many releases, of which noise, with which sampling rate


@dataclass(frozen=True)
class Spread:
    """One figure over several seeds. ``nan`` values (an AUC of one label) are left out."""

    values: tuple[float, ...]

    @property
    def finite(self) -> tuple[float, ...]:
        """The values that exist."""
        return tuple(value for value in self.values if math.isfinite(value))

    @property
    def mean(self) -> float:
        """Their mean; ``nan`` if there is none."""
        return statistics.fmean(self.finite) if self.finite else math.nan

    @property
    def deviation(self) -> float:
        """Their sample standard deviation; ``nan`` for fewer than two."""
        return statistics.stdev(self.finite) if len(self.finite) > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A model judged on one set of held-out rows, over seeds."""

    accuracy: Spread
    auc: Spread


class Kind(Enum):
    """Who trained a model of a comparison."""

    ALONE = "alone"
    TOGETHER = "together"
    POOLED = "pooled"


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One model of a comparison.

    ``own`` has one entry per party that uses the model: one for a model trained alone, all parties for
    the others. Each is that party's held-out rows.
    """

    name: str
    kind: Kind
    own: Mapping[str, Judgement]
    everyone: Judgement  # the held-out rows of all parties together

    def at_home(self) -> Judgement:
        """Return the mean over the parties in ``own``, each counted once, seed by seed."""
        parts = list(self.own.values())
        return Judgement(
            accuracy=_mean([part.accuracy for part in parts]),
            auc=_mean([part.auc for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the data of a comparison comes from, and under which licence."""

    name: str
    authors: str
    licence: str
    address: str  # shown as text, never fetched
    party: str = "client"  # what one holder of data is called: "hospital"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Each party alone, all together, all pooled: the same model and the same held-out rows."""

    title: str
    rows: tuple[ComparisonRow, ...]
    seeds: tuple[int, ...]
    runs: tuple[RunSummary, ...]  # the run together, one per seed
    source: DataSource
    seconds: float  # wall time of everything
    notes: tuple[str, ...] = ()  # how the data was split and prepared, one sentence or two each

    def __post_init__(self) -> None:
        spreads = [s for row in self.rows for j in (row.everyone, *row.own.values()) for s in (j.accuracy, j.auc)]
        lengths = {len(spread.values) for spread in spreads} | {len(self.runs)}
        if lengths != {len(self.seeds)}:
            raise ConfigurationError(
                f"A comparison over {len(self.seeds)} seeds needs as many runs and values in every figure; "
                f"found {sorted(lengths)}."
            )

    def of(self, kind: Kind) -> tuple[ComparisonRow, ...]:
        """Return the rows of one kind."""
        return tuple(row for row in self.rows if row.kind is kind)


def client_rows(
    judged: Mapping[str, Mapping[str, float]], refused: Mapping[str, tuple[str, ...]]
) -> tuple[ClientRow, ...]:
    """Return a row for each client that judged or was refused, from a checkpoint's and a record's own values."""
    return tuple(
        ClientRow(
            name=name,
            examples=int(judged.get(name, {}).get(EXAMPLES, 0)),
            figures={figure: value for figure, value in judged.get(name, {}).items() if figure != EXAMPLES},
            refused=tuple(refused.get(name, ())),
        )
        for name in sorted({*judged, *refused})
    )


def _mean(spreads: Sequence[Spread]) -> Spread:
    """Average seed by seed over the parties that have the figure."""
    seeds = zip(*(spread.values for spread in spreads), strict=True)
    return Spread(tuple(Spread(tuple(values)).mean for values in seeds))
