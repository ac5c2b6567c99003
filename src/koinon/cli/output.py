"""What a command prints: one JSON object on stdout, or text."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from koinon.report.finite import finite

_STDOUT, _STDERR = 1, 2


def leave_to_json(context: click.Context, parameter: click.Parameter, as_json: bool) -> bool:
    """Send all else that is printed to stderr, by this process or by one that it starts: an app file may print, too."""
    if as_json:
        sys.stdout.flush()
        context.obj = context.with_resource(os.fdopen(os.dup(_STDOUT), "w"))
        os.dup2(_STDERR, _STDOUT)
    return as_json


def print_json(value: Any) -> None:
    """Write one JSON object to stdout; figures that do not exist are null."""
    context = click.get_current_context(silent=True)
    out = sys.stdout if context is None or context.obj is None else context.obj
    out.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")
    out.flush()


def say(text: str = "") -> None:
    """Write a line to stdout."""
    sys.stdout.write(text + "\n")
