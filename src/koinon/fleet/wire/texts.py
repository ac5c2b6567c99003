"""Which texts the protocol takes for a digest, and which can be written down at all."""

from __future__ import annotations

import re

NAME_RULE = "A name has 1 to 64 letters, digits, dots, underscores or hyphens."
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_name(text: str) -> bool:
    """Return whether a party may be called so: ``NAME_RULE``."""
    return _NAME.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Return whether a text is a SHA-256 in lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def is_writable(text: str) -> bool:
    """Return whether a text can be written as UTF-8: JSON can carry halves of letters, which cannot."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
