"""What stands in a call's path and query: whole numbers, and how a client waits."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from koinon.fleet.wire.refusal import Refusal

LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Patience:
    """What a client knows of its work, how long it waits for more, and how large a model may come with that."""

    since: int
    wait: float  # seconds
    carry: int  # bytes
    have: str  # digest of a model that it need not be sent

    @classmethod
    def of(cls, request: Request) -> Patience:
        """Return what a query says. Raises Refusal."""
        wait = min(float(in_query(request, "wait", 0)), LONGEST_WAIT)
        return cls(
            in_query(request, "since", 0), wait, in_query(request, "carry", 0), request.query_params.get("have", "")
        )


def in_path(request: Request, name: str) -> int:
    """Return a number of the path. Raises Refusal."""
    text = request.path_params[name]
    found = whole_number(text)
    if found is None:
        raise Refusal(404, "unknown", f"There is no {name} {text[:40]!r}.")
    return found


def in_query(request: Request, name: str, default: int) -> int:
    """Return a number of the query. Raises Refusal."""
    found = whole_number(request.query_params.get(name, str(default)))
    if found is None:
        raise Refusal(422, "malformed", f"{name} must be a whole number.")
    return found


def whole_number(text: str) -> int | None:
    """Return the number that a text is, or None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
