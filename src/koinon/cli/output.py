"""What a command prints: one JSON object on stdout, or text."""

from __future__ import annotations

import json
import sys
from typing import Any

from koinon.report.finite import finite


def print_json(value: Any) -> None:
    """Write one JSON object to stdout; figures that do not exist are null."""
    sys.stdout.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def say(text: str = "") -> None:
    """Write a line to stdout."""
    sys.stdout.write(text + "\n")
