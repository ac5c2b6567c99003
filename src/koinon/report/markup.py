"""HTML and SVG as nested calls. Text is escaped unless it came out of here, so nothing can be forgotten."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_VOID = frozenset({"meta", "br"})
# XML 1.0 allows no other control characters, and a lone surrogate is no character at all.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: str) -> Markup:
    """Return plain text, escaped; characters that a page cannot hold become U+FFFD."""
    return value if isinstance(value, Markup) else Markup(html.escape(_NOT_XML.sub("\ufffd", value)))


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element. ``class_="x"`` is ``class="x"``, ``stroke_width`` is ``stroke-width``; None is left out.

    >>> element("td", "a < b", class_="number")
    '<td class="number">a &lt; b</td>'
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(format(value, ".6g") if isinstance(value, float) else str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{join(children)}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """Return parts one after the other."""
    return Markup("".join(text(part) for part in parts))


def data_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 0) -> Markup:
    """Return a table whose first column names the rows; the last ``words`` columns are words, the others figures."""
    kinds = [None] * (len(head) - words) + ["words"] * words
    columns = element("tr", *(element("th", name, scope="col", class_=k) for name, k in zip(head, kinds, strict=True)))
    body = (
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    )
    table = element("table", element("caption", caption), element("thead", columns), element("tbody", *body))
    return element("div", table, class_="scroll", tabindex=0)
