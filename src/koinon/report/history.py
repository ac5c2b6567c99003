"""The history of a run: one record per finished round, as rows, columns or a frame."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from koinon.core.events import RoundRecord
from koinon.errors import ConfigurationError
from koinon.report.figures import figure_names, headline, number, seconds_text, spelt
from koinon.report.markup import Markup, data_table

_SHOWN = 20  # rounds in a notebook's table


@dataclass(frozen=True, eq=False, repr=False)
class History(Sequence[RoundRecord]):
    """The finished rounds of a run, oldest first. Immutable; a slice is a history too.

    >>> history = History([RoundRecord(1, 4, {}, {"loss": 0.5}, 0.1), RoundRecord(2, 4, {}, {"loss": 0.25}, 0.1)])
    >>> history.column("loss")
    [(1, 0.5), (2, 0.25)]
    >>> history
    History(rounds=2, seconds=0.20, loss=0.2500)
    """

    records: Sequence[RoundRecord] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(self.records))

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> RoundRecord: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> RoundRecord | History:
        return History(self.records[index]) if isinstance(index, slice) else self.records[index]

    def __repr__(self) -> str:
        parts = [f"rounds={len(self)}", f"seconds={self.seconds:.2f}"]
        if self.records:
            parts += [f"{name}={number(value)}" for name, value in headline(self.records[-1].figures)]
        return f"History({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return the last rounds as a table, for a notebook."""
        caption = f"The last {_SHOWN} of {len(self)} rounds" if len(self) > _SHOWN else "Every round"
        return self[-_SHOWN:].table(caption)

    @property
    def seconds(self) -> float:
        """The wall time of all rounds, in seconds."""
        return sum(record.seconds for record in self.records)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all figures that any round has, in order of appearance."""
        return figure_names(record.figures for record in self.records)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict a round: ``round, cohort, refused, seconds`` and its figures."""
        return [record.to_json() for record in self.records]

    def frame(self) -> Any:
        """Return :meth:`rows` as a ``pandas.DataFrame``; ``nan`` where a round has no such figure."""
        from koinon.report.pandas_frame import frame

        return frame(self.rows())

    def column(self, name: str) -> list[tuple[int, float]]:
        """Return ``(round, value)`` for every round that has the figure ``name``."""
        columns = (*self.names, "seconds", "cohort")
        if name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            raise ConfigurationError(
                f"No round has a figure {name!r}. {f'Did you mean {near[0]!r}? ' if near else ''}"
                f"The figures are {', '.join(columns)}."
            )
        rows = ({"seconds": record.seconds, "cohort": record.cohort, **record.figures} for record in self.records)
        return [(record.round, float(row[name])) for record, row in zip(self.records, rows, strict=True) if name in row]

    def table(self, caption: str) -> Markup:
        """Return the rounds as an HTML table."""
        head = ("round", *(spelt(name) for name in self.names), "clients", "refused", "seconds")
        rows = [
            (
                str(record.round),
                *(number(record.figures.get(name)) for name in self.names),
                str(record.cohort),
                ", ".join(record.refused),
                seconds_text(record.seconds),
            )
            for record in self.records
        ]
        return data_table(caption, head, rows)
