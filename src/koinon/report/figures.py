"""How figures are named and written for a person: which ones come first, how many digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from koinon.metrics import LOSS

HELD_OUT, TEST, TRAIN = "", "test_", "train_"
_SOURCES = (HELD_OUT, TEST, TRAIN)  # the best judge first
_OVER_CLIENTS = {"_mean": ", clients' mean", "_worst": ", worst client", "_spread": ", clients' spread"}


def figure_names(figures: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    """Return every name once, in order of appearance."""
    return tuple(dict.fromkeys(name for row in figures for name in row))


def metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Return the metrics behind figures' names, the loss first: no prefix, nothing over clients.

    >>> metrics(["train_loss", "train_auc", "loss", "loss_worst", "auc", "auc_worst", "test_loss"])
    ('loss', 'auc')
    """
    known = tuple(names)
    found = dict.fromkeys(_without_source(name) for name in known if not _over_clients(name, known))
    return tuple(sorted(found, key=lambda name: name != LOSS))


def headline(figures: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the few figures that sum a round up: the loss, the first other metric, its worst client.

    Each is the clients' held-out figure where there is one, else the server's test figure, else the
    training figure.
    """
    shown = []
    for metric in metrics(figures)[:2]:
        name = next(source + metric for source in _SOURCES if source + metric in figures)
        shown.append((name, figures[name]))
        worst = f"{metric}_worst"
        if name == metric != LOSS and worst in figures:
            shown.append((worst, figures[worst]))
    return shown


def number(value: float | None) -> str:
    """Return a figure with about four digits, and nothing for None.

    >>> [number(x) for x in (0.81234, 12.5, 1234.56, 2.5e9, 0.00012, 0.0, float("nan"), None)]
    ['0.8123', '12.50', '1235', '2.500e+09', '0.00012', '0', 'nan', '']
    """
    if value is None:
        return ""
    size = abs(value)
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if size >= 1e6:
        return f"{value:.3e}"
    if size < 1e-3:
        return f"{value:.4g}"
    decimals = 4 if size < 1 else max(0, 3 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def spelt(name: str) -> str:
    """Return a figure's name in words.

    >>> [spelt(name) for name in ("auc", "train_loss", "test_top_5", "accuracy_worst")]
    ['AUC', 'training loss', 'test top 5', 'accuracy, worst client']
    """
    metric = _without_source(name)
    before = {TRAIN: "training ", TEST: "test "}.get(name.removesuffix(metric), "")
    end = next((end for end in _OVER_CLIENTS if metric.endswith(end)), "")
    words = metric.removesuffix(end).replace("_", " ")
    return f"{before}{words.upper() if len(words) <= 3 else words}{_OVER_CLIENTS.get(end, '')}"


def mean_and_deviation(mean: float, deviation: float) -> str:
    """Return ``0.812 ± 0.021``, the mean alone where there is no deviation, a dash where there is no mean.

    >>> mean_and_deviation(0.8124, 0.02), mean_and_deviation(0.8, float("nan"))
    ('0.812 ± 0.020', '0.800')
    """
    if not math.isfinite(mean):
        return "–"
    return f"{mean:.3f} ± {deviation:.3f}" if math.isfinite(deviation) else f"{mean:.3f}"


def seconds_text(seconds: float) -> str:
    """Return a length of time in the unit that suits it.

    >>> [seconds_text(x) for x in (0.0042, 1.234, 75, 7260)]
    ['4.2 ms', '1.23 s', '1 min 15 s', '2 h 1 min']
    """
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _without_source(name: str) -> str:
    return next((name.removeprefix(source) for source in (TEST, TRAIN) if name.startswith(source)), name)


def _over_clients(name: str, names: tuple[str, ...]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in names for end in _OVER_CLIENTS)
