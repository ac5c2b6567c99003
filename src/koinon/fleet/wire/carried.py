"""An answer with a small model behind it: 8 bytes of length (little-endian), JSON, the model's file.

It saves a call where both sides can: a participant says how large a model may be that comes so, and an answer of type
``application/json`` has none behind it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from koinon.errors import FormatError

CARRIED = "application/octet-stream"
_LENGTH_BYTES = 8
_MOST_BYTES = 64 << 10


def head(told: Mapping[str, Any]) -> bytes:
    """Return what comes before the model."""
    text = json.dumps(told, separators=(",", ":")).encode()
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_head(read: Callable[[int], bytes]) -> dict[str, Any]:
    """Return what :func:`head` was made of; ``read`` gives the next bytes of an answer. Raises FormatError."""
    length = int.from_bytes(read(_LENGTH_BYTES), "little")
    if length > _MOST_BYTES:
        raise FormatError(f"What comes before a model has at most {_MOST_BYTES:,} bytes; {length:,} were announced.")
    try:
        return dict(json.loads(read(length)))
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError("What comes before a model is a JSON object.") from error
