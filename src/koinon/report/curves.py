"""A run's curves as SVG, without any plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from koinon.errors import ConfigurationError
from koinon.metrics import LOSS, lower_is_better
from koinon.report.figures import metrics, spelt
from koinon.report.files import write_text
from koinon.report.history import History
from koinon.report.markup import Markup, element
from koinon.report.panel import HEIGHT, WIDTH, Band, Line, Panel, Point, Role, draw
from koinon.report.style import CHART, PALETTE

_GAP = 8.0


@dataclass(frozen=True)
class Figure:
    """Charts side by side, two in a row. Shows itself in a notebook; follows the reader's light or dark scheme."""

    panels: tuple[Panel, ...]

    @property
    def svg(self) -> str:
        """The figure as one SVG document that needs nothing else."""
        columns = min(2, len(self.panels)) or 1
        rows = math.ceil(len(self.panels) / columns)
        width, height = columns * (WIDTH + _GAP) - _GAP, max(rows * (HEIGHT + _GAP) - _GAP, 1.0)
        placed = [
            element(
                "svg", draw(panel), width=WIDTH, height=HEIGHT,
                x=(i % columns) * (WIDTH + _GAP), y=(i // columns) * (HEIGHT + _GAP),
            )
            for i, panel in enumerate(self.panels)
        ]  # fmt: skip
        title = ", ".join(panel.title for panel in self.panels) or "No figures"
        said = " ".join(panel.describe() for panel in self.panels)
        return chart(title, said, width, height, placed)

    def save(self, path: str | Path) -> Path:
        """Write the figure to ``path``, which ends in ``.svg``, and return it."""
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise ConfigurationError(f"A figure is saved as SVG; found {str(target)!r}. Name a file that ends in .svg.")
        return write_text(target, self.svg)

    def _repr_svg_(self) -> str:
        return self.svg


def chart(title: str, description: str, width: float, height: float, content: Sequence[Markup]) -> Markup:
    """Return a whole SVG with its own style and words for a reader who cannot see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        element("style", Markup(PALETTE + CHART)),
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        class_="koinon chart",
        role="img",
    )


def panel_svg(panel: Panel) -> Markup:
    """Return one chart as a whole SVG."""
    return chart(panel.title, panel.describe(), WIDTH, HEIGHT, [draw(panel)])


def plot(history: History, names: Sequence[str] | None = None) -> Figure:
    """Return one chart per name: a metric with all its figures (``"accuracy"``), or one figure (``"test_loss"``).

    Without names: every metric of the history, the loss first. Raises ConfigurationError for a name that no
    round has.
    """
    known = metrics(history.names)
    chosen = known if names is None else tuple(names)
    return Figure(tuple(_metric(history, name) if name in known else _single(history, name) for name in chosen))


def plot_seeds(histories: Sequence[History], metric: str, references: Mapping[str, float]) -> Panel:
    """Return one chart of ``metric`` over several runs: each faint, their mean a finished run keeping its last value.

    ``references`` are levels to compare with, by name.
    """
    runs = [history.column(metric) for history in histories if metric in history.names]
    mean = _carried_mean(runs)
    lines = [Line(f"seed {i + 1}", run, faint=True) for i, run in enumerate(runs)] if len(runs) > 1 else []
    return Panel(
        title=title(metric),
        subtitle="held-out; seeds and their mean (last values carried on)" if lines else "held-out; one seed",
        lines=(*lines, Line("together", mean)),
        references=tuple((name, value) for name, value in references.items() if math.isfinite(value)),
    )


def title(metric: str) -> str:
    """Return a metric's name as a heading.

    >>> title("auc"), title("train_loss")
    ('AUC', 'Training loss')
    """
    words = spelt(metric)
    return words[:1].upper() + words[1:]


def _carried_mean(runs: Sequence[Sequence[Point]]) -> list[Point]:
    values = [dict(run) for run in runs]
    last = [math.nan] * len(runs)
    mean = []
    for round in sorted({round for run in values for round in run}):
        last = [run.get(round, before) for run, before in zip(values, last, strict=True)]
        mean.append((round, sum(last) / len(last)))
    return mean


def _metric(history: History, metric: str) -> Panel:
    """Return the panel of a metric; clients' spread and the worst of them for all but the loss."""
    worst, shaded = f"{metric}_worst", f"{metric}_spread"
    roles = {
        f"train_{metric}": ("training", Role.SECOND),
        metric: ("held-out", Role.FIRST),
        worst: ("worst client", Role.THIRD),
        f"test_{metric}": ("server's test", Role.FOURTH),
    }
    several = metric != LOSS and shaded in history.names and any(value for _, value in history.column(shaded))
    shown = [name for name in roles if name in history.names and (several or name != worst)]
    lines = tuple(Line(roles[name][0], history.column(name), roles[name][1]) for name in shown)
    better = "lower is better" if lower_is_better(metric) else "higher is better"
    subtitle = f"{better}; shaded: clients' mean ± standard deviation" if several else better
    return Panel(title=title(metric), subtitle=subtitle, lines=lines, bands=_spread(history, metric) if several else ())


def _spread(history: History, metric: str) -> tuple[Band, ...]:
    means, spreads = history.column(f"{metric}_mean"), dict(history.column(f"{metric}_spread"))
    low: list[Point] = [(round, mean - spreads[round]) for round, mean in means]
    high: list[Point] = [(round, mean + spreads[round]) for round, mean in means]
    return (Band(low, high),)


def _single(history: History, name: str) -> Panel:
    return Panel(title=title(name), lines=(Line(spelt(name), history.column(name)),))
