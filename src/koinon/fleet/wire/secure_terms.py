"""What a deployed secure sum calls its mailboxes and the parts of a masked vector."""

from __future__ import annotations

from koinon.core.types import Purpose
from koinon.privacy.secure_sum.server import Stage

BODY, TAIL = "body", "tail"
"""What a masked vector's two parts are called in an update's file."""


def stage_name(purpose: Purpose, attempt: int, stage: Stage) -> str:
    """Return what a stage's mailbox is called."""
    return f"{purpose.value}-{attempt}-{stage.value}"


def attempt_of(name: str, purpose: Purpose) -> int | None:
    """Return the attempt of a stage's name, None for one of another purpose."""
    parts = name.split("-")
    return int(parts[1]) if len(parts) == 3 and parts[0] == purpose.value and parts[1].isdigit() else None
