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

from koinon.core.protocols import Model
from koinon.core.types import Rows
from koinon.errors import ConfigurationError
from koinon.report.history import History
from koinon.round.evaluation import client_figures


@dataclass(frozen=True, kw_only=True)
class ClientRow:
    """One client in the last round."""

    name: str
    examples: int  # trained on in the round, or held out where it only judged
    figures: Mapping[str, float] = field(default_factory=dict)  # its own: train_loss, loss, accuracy, ...
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
    clients: tuple[ClientRow, ...] = ()  # the last round; empty where its rows were not kept


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
    model: Model, names: Sequence[str], *, trained: Rows | None = None, judged: Rows | None = None
) -> tuple[ClientRow, ...]:
    """Return the clients of a round by position.

    ``trained`` are the rows of its training, whose figures become ``train_*``; ``judged`` those of its
    evaluation on the clients' held-out examples.
    """
    figures: dict[int, dict[str, float]] = {}
    examples: dict[int, int] = {}
    for rows, prefix in ((judged, ""), (trained, "train_")):
        if rows is None or not rows.metrics:
            continue
        for client, own in client_figures(model, rows).items():
            figures.setdefault(client, {}).update({f"{prefix}{name}": value for name, value in own.items()})
        counts = zip(rows.clients.tolist(), rows.metrics["examples"].tolist(), strict=True)
        examples.update({client: int(count) for client, count in counts})
    refused = trained.refused() if trained is not None else {}
    return tuple(
        ClientRow(name=names[i], examples=examples[i], figures=figures.get(i, {}), refused=refused.get(i, ()))
        for i in sorted(examples)
    )


def _mean(spreads: Sequence[Spread]) -> Spread:
    """Average seed by seed over the parties that have the figure."""
    seeds = zip(*(spread.values for spread in spreads), strict=True)
    return Spread(tuple(Spread(tuple(values)).mean for values in seeds))
