"""One row per model, one dot per seed, a line at the mean: how far apart models are, against how far seeds are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koinon.report.axes import Axis, axis
from koinon.report.figures import number
from koinon.report.markup import Markup, element
from koinon.report.panel import WIDTH, Role, short
from koinon.report.summary import Spread
from koinon.report.terminal import width

_TOP, _ROW, _BOTTOM, _EDGE, _LETTER, _LONGEST = 56.0, 28.0, 30.0, 12.0, 6.8, 24


@dataclass(frozen=True)
class Strip:
    """One model's values over seeds."""

    name: str
    spread: Spread
    role: Role = Role.FIRST


def strips_height(count: int) -> float:
    """Return the height of a chart of ``count`` strips."""
    return _TOP + _ROW * count + _BOTTOM


def draw_strips(title: str, subtitle: str, strips: Sequence[Strip]) -> Markup:
    """Return the content of an SVG of ``WIDTH`` by ``strips_height(len(strips))``."""
    height = strips_height(len(strips))
    left = 2 * _EDGE + _LETTER * max((width(short(strip.name, _LONGEST)) for strip in strips), default=0)
    values = [value for strip in strips for value in strip.spread.finite]
    x = axis(values, left, WIDTH - _EDGE - 46, count=4)
    children = [
        element("rect", class_="surface", width=WIDTH, height=height, rx=6),
        element("text", title, class_="title", x=_EDGE, y=24.0),
        element("text", subtitle, x=_EDGE, y=41.0),
    ]
    for tick in x.ticks:
        at = x.place(tick)
        children.append(element("line", class_="grid", x1=at, x2=at, y1=_TOP - 4, y2=height - _BOTTOM))
        children.append(element("text", x.label(tick), x=at, y=height - _BOTTOM + 17, text_anchor="middle"))
    children += [_strip(strip, x, _TOP + _ROW * (i + 0.5)) for i, strip in enumerate(strips)]
    return Markup("".join(children))


def describe_strips(title: str, strips: Sequence[Strip]) -> str:
    """Return what the chart shows, for a reader who cannot see it."""
    return f"{title}. " + "; ".join(f"{strip.name}: mean {number(strip.spread.mean)}" for strip in strips) + "."


def _strip(strip: Strip, x: Axis, at: float) -> Markup:
    colour, spread = strip.role.value[0], strip.spread
    shapes = [element("text", short(strip.name, _LONGEST), x=x.start - _EDGE, y=at + 4, text_anchor="end")]
    if spread.finite:
        mean = x.place(spread.mean)
        shapes += [element("circle", class_=f"{colour} faint", cx=x.place(v), cy=at, r=4) for v in spread.finite]
        shapes.append(element("line", class_=f"line {colour}", x1=mean, x2=mean, y1=at - 9, y2=at + 9))
    value = f"{spread.mean:.3f}" if spread.finite else "–"
    shapes.append(element("text", value, class_=colour, x=WIDTH - _EDGE, y=at + 4, text_anchor="end"))
    return element("g", *shapes)
