"""Charts hold what they are given: no label over another, no text unescaped, nothing outside the picture."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import comparison, history, record

from koinon.core.events import RoundRecord
from koinon.errors import ConfigurationError, StoreError
from koinon.report import style
from koinon.report.axes import axis
from koinon.report.curves import Figure, plot, plot_seeds
from koinon.report.history import History
from koinon.report.panel import HEIGHT, WIDTH, Line, Panel, Role, draw, spread_out, thin
from koinon.report.strips import Strip, draw_strips, strips_height
from koinon.report.summary import Spread

_SVG = "{http://www.w3.org/2000/svg}"
finite = st.floats(-1e9, 1e9)


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str, colour: str | None = None) -> list[ElementTree.Element]:
    found = list(parse(svg).iter(f"{_SVG}text"))
    return [e for e in found if colour is None or e.get("class") == colour]


@given(st.lists(finite, min_size=1, max_size=30), st.booleans())
def test_an_axis_holds_its_values_and_has_a_few_ticks(values: list[float], whole: bool) -> None:
    made = axis(values, 0.0, 100.0, whole=whole)
    assert all(-1e-6 <= made.place(value) <= 100 + 1e-6 for value in values)
    assert all(-1e-6 <= made.place(tick) <= 100 + 1e-6 for tick in made.ticks)
    assert 1 <= len(made.ticks) <= 11
    assert not whole or all(tick == int(tick) for tick in made.ticks)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=9))
def test_no_two_ticks_read_the_same(values: list[float]) -> None:
    made = axis(values, 0.0, 100.0)
    labels = [made.label(tick) for tick in made.ticks]
    assert len(set(labels)) == len(labels)


@given(st.lists(st.floats(0, 200), max_size=12).map(sorted))
def test_labels_are_apart_and_within_the_picture(places: list[float]) -> None:
    moved = spread_out(places, 14, 0, 200)
    assert all(b - a >= 14 - 1e-6 for a, b in itertools.pairwise(moved))
    assert all(-1e-6 <= place <= 200 + 1e-6 for place in moved)
    if all(b - a >= 14 for a, b in itertools.pairwise(places)):
        assert moved == pytest.approx(places)


@given(st.integers(0, 3000), st.randoms(use_true_random=False))
def test_a_thinned_line_keeps_its_ends_and_extremes(count: int, draw: Random) -> None:
    values = [draw.random() for _ in range(count)]
    points = list(enumerate(values))
    kept = thin(points)
    assert len(kept) <= 402
    assert set(kept) <= set(points)
    if points:
        assert kept[0] == points[0]
        assert kept[-1] == points[-1]
        assert {min(values), max(values)} <= {value for _, value in kept}


@given(st.lists(st.one_of(finite, st.just(math.nan), st.just(math.inf)), max_size=8), st.text(max_size=60))
def test_any_figures_and_any_name_make_a_wellformed_chart(values: list[float], name: str) -> None:
    panel = Panel(title=name, lines=(Line(name, list(enumerate(values, 1))),), references=((name, 0.5),))
    svg = Figure((panel,)).svg
    root = parse(svg)
    assert {e.tag.removeprefix(_SVG) for e in root.iter()} <= {
        "svg", "title", "desc", "style", "rect", "text", "line", "path", "g", "circle",
    }  # fmt: skip
    numbers = [float(n) for d in root.iter(f"{_SVG}path") for n in re.findall(r"-?[\d.]+", d.get("d") or "")]
    assert all(-0.5 <= number <= WIDTH + 0.5 for number in numbers)


def test_lines_are_named_at_their_ends_without_overlap() -> None:
    close = tuple(Line(f"line {i}", [(1, 0.5), (2, 0.5 + i / 1e5)], Role.FIRST) for i in range(5))
    svg = Figure((Panel(title="Close", lines=close),)).svg
    heights = sorted(float(e.get("y") or 0) for e in texts(svg, "first"))
    assert len(heights) == 5
    assert all(b - a >= 14 for a, b in itertools.pairwise(heights))
    assert heights[-1] < HEIGHT


def test_a_metric_has_training_held_out_worst_and_a_band() -> None:
    loss, accuracy = plot(history(6)).panels
    assert [line.label for line in loss.lines] == ["training", "held-out"]
    assert [line.label for line in accuracy.lines] == ["training", "held-out", "worst client"]
    (band,) = accuracy.bands
    ((_, low), (_, high)) = (band.low[0], band.high[0])
    assert high - low == pytest.approx(0.1)


def test_one_client_has_no_worst_and_no_band() -> None:
    alone = {"loss": 0.5, "accuracy": 0.8, "accuracy_mean": 0.8, "accuracy_worst": 0.8, "accuracy_spread": 0.0}
    panel = plot(History([RoundRecord(1, 1, {}, alone, 0.1)])).panels[1]
    assert [line.label for line in panel.lines] == ["held-out"]
    assert panel.bands == ()


def test_names_choose_the_charts_and_unknown_ones_are_refused() -> None:
    assert [panel.title for panel in plot(history(3), ["accuracy", "train_loss"]).panels] == [
        "Accuracy",
        "Training loss",
    ]
    with pytest.raises(ConfigurationError, match="Did you mean 'loss'"):
        plot(history(3), ["los"])


def test_a_finished_seed_keeps_its_last_value_in_the_mean() -> None:
    short, long = History([record(1)]), History([record(1), record(2)])
    panel = plot_seeds([short, long], "accuracy", {"pooled": 0.8})
    (_, first), (_, second) = panel.lines[-1].points
    assert first == pytest.approx(record(1).figures["accuracy"])
    assert second == pytest.approx((record(1).figures["accuracy"] + record(2).figures["accuracy"]) / 2)


def test_a_figure_describes_itself_in_words() -> None:
    root = parse(plot(history(3)).svg)
    assert root.get("role") == "img"
    said = root.find(f"{_SVG}desc")
    assert said is not None and "held-out: 0.69" in (said.text or "")


def test_strips_show_every_seed_and_the_mean() -> None:
    rows = comparison().rows
    strips = [Strip(row.name, row.everyone.accuracy) for row in rows] + [Strip("no figure", Spread((math.nan,)))]
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg">{draw_strips("Accuracy", "", strips)}</svg>'
    circles = list(parse(drawn).iter(f"{_SVG}circle"))
    assert len(circles) == 3 * len(rows)
    assert all(0 < float(c.get("cy") or 0) < strips_height(len(strips)) for c in circles)


def test_a_figure_is_saved_as_svg_only(tmp_path: Path) -> None:
    figure = plot(history(2))
    assert figure.save(tmp_path / "new" / "curves.svg").read_text(encoding="utf-8") == figure.svg
    assert figure._repr_svg_() == figure.svg
    with pytest.raises(ConfigurationError, match=r"ends in \.svg"):
        figure.save(tmp_path / "curves.png")


def test_a_figure_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can be written"):
        plot(history(2)).save(tmp_path / "file" / "curves.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_figures_make_an_empty_figure() -> None:
    assert "No figures" in plot(History()).svg
    assert "no finite figure" in str(draw(Panel(title="Loss", lines=(Line("held-out", [(1, math.nan)]),))))


@pytest.mark.parametrize("scheme", [style._LIGHT, style._DARK], ids=["light", "dark"])
def test_every_text_colour_stands_out_from_every_ground(scheme: dict[str, str]) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ground in ("surface", "ground", "mark"):
        for text in ("text", "muted", "first", "second", "third", "fourth"):
            dark, light = sorted((luminance(scheme[ground]), luminance(scheme[text])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, text)
