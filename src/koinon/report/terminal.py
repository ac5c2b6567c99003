"""Text that any terminal, pipe or log can hold: no control characters, nothing its encoding lacks."""

from __future__ import annotations

from unicodedata import combining, east_asian_width

_PLAIN = str.maketrans({"±": "+-", "–": "-", "…": "..."})


def printable(value: str) -> str:
    r"""Return one line without control characters: a client's name may not move the cursor.

    >>> printable("va\x1b[2J\n")
    'va\\x1b[2J\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)


def width(text: str) -> int:
    """Return how many columns printable ``text`` takes: Chinese and its like are two wide, combining marks none.

    >>> width("Zürich"), width("北京")
    (6, 4)
    """
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def encodable(text: str, encoding: str | None) -> str:
    r"""Return ``text`` with what ``encoding`` lacks spelt out.

    >>> encodable("0.8 ± 0.1 for Zürich", "ascii")
    '0.8 +- 0.1 for Z\\xfcrich'
    """
    name = encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(name, "backslashreplace").decode(name)
    return text
