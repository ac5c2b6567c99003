"""The live page of a coordinator: one HTML file without any data in it, which reads the status as it changes.

It loads nothing from anywhere and asks only its own coordinator. The policy lets a browser run its one script and
use its one style sheet, both by their hashes, and turns text into markup nowhere.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from koinon.report.style import CHART, PAGE, PALETTE

_SCRIPTS = ("figures.js", "nodes.js", "chart.js", "curves.js", "connection.js", "board.js", "page.js")
"""In the order in which one needs the other; together they are one script."""


def live_page() -> str:
    """Return the page, the same for everybody: it asks for the operator's token in the browser.

    It is served at ``GET /`` with the header of :func:`content_security_policy`, and calls ``v1/admin/...`` beside
    the address it came from.
    """
    page = _read("page.html")
    page = page.replace("<style></style>", f"<style>{_style()}</style>")
    return page.replace("<script></script>", f"<script>{_script()}</script>")


def content_security_policy() -> str:
    """Return the ``Content-Security-Policy`` to send with :func:`live_page`.

    W3C, "Content Security Policy Level 3"; "Trusted Types".
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(_style())}",
            f"script-src {_hash(_script())}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


@cache
def _style() -> str:
    return PALETTE + CHART + PAGE + _read("page.css")


@cache
def _script() -> str:
    return '"use strict";\n' + "\n".join(map(_read, _SCRIPTS))


def _read(name: str) -> str:
    return (files("koinon.report") / "live" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
