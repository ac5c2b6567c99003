"""One line chart as SVG: lines named at their ends, bands, reference lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from koinon.report.axes import Axis, axis
from koinon.report.figures import number
from koinon.report.markup import Markup, element
from koinon.report.terminal import width

Point: TypeAlias = tuple[float, float]  # round, value

WIDTH, HEIGHT = 420.0, 264.0
_TOP, _BOTTOM, _EDGE = 54.0, 36.0, 12.0
_LETTER, _LEADING = 7.3, 15.0  # of 12 px text: a generous mean width, a line
_LONGEST = 26  # letters of a label
_DRAWN = 400  # points of a line: more than the picture can show


class Role(Enum):
    """What a line stands for: its colour and its dashes."""

    FIRST = ("first", None)
    SECOND = ("second", "2 4")
    THIRD = ("third", "6 4")
    FOURTH = ("fourth", "8 3 2 3")
    REFERENCE = ("reference", "3 4")


@dataclass(frozen=True)
class Line:
    """A line through the finite ``points``, with gaps at the others. A faint one has no label."""

    label: str
    points: Sequence[Point]
    role: Role = Role.FIRST
    faint: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two lines over the same rounds."""

    low: Sequence[Point]
    high: Sequence[Point]
    role: Role = Role.FIRST


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A chart over rounds. ``references`` are horizontal lines by name."""

    title: str
    subtitle: str = ""
    lines: tuple[Line, ...]
    bands: tuple[Band, ...] = ()
    references: tuple[tuple[str, float], ...] = ()

    def describe(self) -> str:
        """Return what the chart shows, for a reader who cannot see it."""
        ends = [(line.label, finite) for line in self.lines if not line.faint and (finite := _finite(line.points))]
        said = [
            f"{label}: {number(points[0][1])} in round {points[0][0]:g}, "
            f"{number(points[-1][1])} in round {points[-1][0]:g}"
            for label, points in ends
        ]
        said += [f"{label}: {number(value)}" for label, value in self.references]
        return f"{self.title} over rounds. {'; '.join(said) or 'No figures'}."


def draw(panel: Panel) -> Markup:
    """Return a panel as the content of an SVG of ``WIDTH`` by ``HEIGHT``."""
    labels = _labels(panel)
    bottom = HEIGHT - _BOTTOM
    y = axis(_heights(panel), bottom, _TOP, count=4)
    left = _EDGE + _LETTER * max(len(y.label(tick)) for tick in y.ticks) + 6
    right = WIDTH - _EDGE - max((_LETTER * width(shown) + 8 for shown, _, _ in labels), default=0)
    x = axis([point[0] for line in panel.lines for point in line.points], left, right, whole=True)
    children = [
        element("rect", class_="surface", width=WIDTH, height=HEIGHT, rx=6),
        element("text", short(panel.title, 44), class_="title", x=_EDGE, y=24.0),
        element("text", panel.subtitle, x=_EDGE, y=41.0),
        *_grid(x, y),
        *(_band(band, x, y) for band in panel.bands),
        *(_reference(value, x, y) for _, value in panel.references),
        *(_line(line, x, y) for line in panel.lines),
        *_ends(labels, x, y),
    ]
    if not labels:
        children.append(element("text", "no finite figure", x=left + 12, y=(_TOP + bottom) / 2))
    return Markup("".join(children))


def _grid(x: Axis, y: Axis) -> list[Markup]:
    marks = []
    for tick in y.ticks:
        at = y.place(tick)
        marks.append(element("line", class_="grid", x1=x.start, x2=x.end, y1=at, y2=at))
        marks.append(element("text", y.label(tick), x=x.start - 6, y=at + 4, text_anchor="end"))
    bottom = y.start + 17
    last = x.place(x.ticks[-1]) if x.ticks else x.start
    for tick in x.ticks:
        marks.append(element("text", x.label(tick), x=x.place(tick), y=bottom, text_anchor="middle"))
    if x.end - last > 70:  # room for the axis's name in the line of its ticks
        return [*marks, element("text", "round", x=x.end, y=bottom, text_anchor="end")]
    return [*marks, element("text", "round", x=x.end, y=bottom + 13, text_anchor="end")]


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    colour, dashes = line.role.value
    pieces, shapes = _pieces(thin(line.points)), []
    path = "".join(f"M{_path(piece, x, y)}" for piece in pieces if len(piece) > 1)
    if path:
        weight = "faint" if line.faint else ("thin" if dashes else "")
        dashed = None if line.faint else dashes
        shapes.append(element("path", class_=f"line {colour} {weight}".rstrip(), d=path, stroke_dasharray=dashed))
    shapes += [_dot(piece[0], colour, x, y) for piece in pieces if len(piece) == 1]
    return element("g", element("title", line.label), *shapes)


def _dot(point: Point, colour: str, x: Axis, y: Axis) -> Markup:
    return element("circle", class_=f"{colour} halo", cx=x.place(point[0]), cy=y.place(point[1]), r=3.5)


def _band(band: Band, x: Axis, y: Axis) -> Markup:
    around = [*_finite(band.low), *reversed(_finite(band.high))]
    return element("path", class_=f"band {band.role.value[0]}", d=f"M{_path(around, x, y)}Z" if around else "")


def _reference(value: float, x: Axis, y: Axis) -> Markup:
    at, (colour, dashes) = y.place(value), Role.REFERENCE.value
    return element("line", class_=f"line thin {colour}", x1=x.start, x2=x.end, y1=at, y2=at, stroke_dasharray=dashes)


def _ends(labels: Sequence[tuple[str, Role, float]], x: Axis, y: Axis) -> list[Markup]:
    """Name every line at its end, pushed apart so that no two names overlap."""
    ordered = sorted(labels, key=lambda entry: y.place(entry[2]))
    places = spread_out([y.place(value) for _, _, value in ordered], _LEADING, y.end, y.start - 6)
    return [
        element("text", shown, class_=role.value[0], x=x.end + 8, y=at + 4)
        for (shown, role, _), at in zip(ordered, places, strict=True)
    ]


def _labels(panel: Panel) -> list[tuple[str, Role, float]]:
    named = [
        (line.label, line.role, finite[-1][1])
        for line in panel.lines
        if not line.faint and (finite := _finite(line.points))
    ]
    named += [(label, Role.REFERENCE, value) for label, value in panel.references if math.isfinite(value)]
    return [(f"{short(label, _LONGEST)} {number(value)}", role, value) for label, role, value in named]


def spread_out(places: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Return ascending ``places`` moved as little as needed to lie ``distance`` apart, within the bounds if they fit.

    >>> spread_out([10, 11, 50], 14, 0, 100)
    [3.5, 17.5, 50.0]
    """
    groups: list[list[float]] = []  # [sum of the wanted first places, count]: neighbours that touch move as one
    for place in places:
        groups.append([float(place), 1])
        while len(groups) > 1:
            (left, left_count), (right, right_count) = groups[-2:]
            if left / left_count + distance * left_count <= right / right_count:
                break
            groups[-2:] = [[left + right - distance * left_count * right_count, left_count + right_count]]
    moved = [total / count + distance * i for total, count in groups for i in range(int(count))]
    if moved and moved[-1] > high:
        moved = [min(place, high - distance * (len(moved) - 1 - i)) for i, place in enumerate(moved)]
    return [max(place, low + distance * i) for i, place in enumerate(moved)]


def thin(points: Sequence[Point]) -> Sequence[Point]:
    """Return at most ``_DRAWN`` points: the lowest and the highest of each stretch, and both ends."""
    if len(points) <= _DRAWN:
        return points
    kept = {0, len(points) - 1}
    stretch = math.ceil(2 * len(points) / (_DRAWN - 2))
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        kept |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _heights(panel: Panel) -> list[float]:
    lines = [*(line.points for line in panel.lines), *(p for band in panel.bands for p in (band.low, band.high))]
    return [point[1] for points in lines for point in points] + [value for _, value in panel.references]


def _pieces(points: Sequence[Point]) -> list[list[Point]]:
    pieces: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    return "L".join(f"{x.place(a):.1f} {y.place(b):.1f}" for a, b in points)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point[1])]


def short(label: str, longest: int) -> str:
    """Return ``label``, cut where it has more letters than there is room for."""
    return label if len(label) <= longest else f"{label[: longest - 1]}…"
