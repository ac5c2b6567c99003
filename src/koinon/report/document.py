"""The shell of a page: one HTML file that loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from koinon.report.markup import Markup, element, join
from koinon.report.style import PAGE, PALETTE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # the reader's browser enforces it too


def document(title: str, content: Iterable[str]) -> str:
    """Return a whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(PALETTE + PAGE)),
    )
    body = element("body", element("main", *content), class_="koinon")
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def heading(title: str, lead: str) -> Markup:
    """Return what a page opens with."""
    return element(
        "header", element("p", "koinon report", class_="quiet"), element("h1", title), element("p", lead, class_="lead")
    )


def facts(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return a row of short facts."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in entries), class_="facts"
    )


def section(title: str, *content: str) -> Markup:
    """Return a part of a page with its heading."""
    return element("section", element("h2", title), *content)


def folded(title: str, *content: str) -> Markup:
    """Return a part that is opened by a click."""
    return element("details", element("summary", title), *content)


def charts(drawn: Iterable[str]) -> Markup:
    """Return charts side by side where there is room."""
    return element("div", *(element("figure", one) for one in drawn), class_="charts")


def paragraphs(texts: Iterable[str]) -> Markup:
    """Return one paragraph each."""
    return join(element("p", one) for one in texts)
