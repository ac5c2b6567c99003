"""What a coordinator tells an invited party before it enrols: which runs there are, and how big they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from koinon.errors import FormatError


@dataclass(frozen=True)
class OfferedRun:
    """A run as a probe sees it.

    ``app`` is the hash of the resolved app, ``description`` the app itself; sizes are in bytes, 0 while no model is
    known; ``longest`` is a round's most seconds.
    """

    run: str
    name: str
    app: str
    state: str
    model_bytes: int
    update_bytes: int
    longest: float
    description: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Offer:
    """The answer to ``POST /v1/probe``: the protocol's versions, koinon's version, the runs."""

    protocol: tuple[int, ...]
    version: str
    runs: tuple[OfferedRun, ...]

    def described(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def read(cls, body: bytes) -> Offer:
        """Return the offer of an answer's body; fields of later versions are ignored. Raises FormatError."""
        try:
            found = json.loads(body)
            runs = tuple(_run(item) for item in found["runs"])
            return cls(tuple(int(version) for version in found["protocol"]), str(found["version"]), runs)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError(f"The answer to a probe cannot be read ({type(error).__name__}: {error}).") from error


def _run(found: Mapping[str, Any]) -> OfferedRun:
    offered = OfferedRun(
        run=str(found["run"]),
        name=str(found["name"]),
        app=str(found["app"]),
        state=str(found["state"]),
        model_bytes=int(found["model_bytes"]),
        update_bytes=int(found["update_bytes"]),
        longest=float(found["longest"]),
        description=dict(found["description"]),
    )
    if min(offered.model_bytes, offered.update_bytes, offered.longest) < 0:
        raise ValueError("a size is negative")
    return offered
