"""A call that is answered with an error: a status, a code for programs, a message for people."""

from __future__ import annotations

from typing import Any

from koinon.errors import FleetError


class Refusal(FleetError):
    """``status`` is the HTTP status, ``code`` a word of the protocol, ``have`` the chunks that are there."""

    def __init__(self, status: int, code: str, message: str, have: list[int] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.have = status, code, have

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        error = {"error": {"code": self.code, "message": str(self)}}
        return error if self.have is None else {**error, "have": self.have}
