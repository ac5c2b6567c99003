"""A client's examples, from the place that an App is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from koinon.errors import ClientError, KoinonError


def loaded(load: Callable[[str], Any] | None, name: str, own: Any) -> Any:
    """Return a client's examples: what is given, or what ``load`` makes of the place that is given.

    Raises ClientError if ``load`` raises.
    """
    if load is None or not isinstance(own, str | Path):
        return own
    try:
        return load(str(own))
    except KoinonError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise ClientError(
            f"The App's data= cannot load {str(own)!r} for client {name!r}: {why}. The traceback "
            "above names the line: look whether the place is right, and whether what is there is as data= expects it.",
            client=name,
            stage="load",
        ) from error
