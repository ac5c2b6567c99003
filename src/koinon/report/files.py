"""Write a report whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from koinon.errors import StoreError


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` as UTF-8 beside ``path``, then put it in its place; return ``path``."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise StoreError(
            f"A report was to be written to {str(path)!r}, but {error.strerror or error}. "
            "Name a folder that can be written and has room."
        ) from error
    return path
