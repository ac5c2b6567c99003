"""A call that is answered with an error: a status, a code for programs, a message for people."""

from __future__ import annotations

from typing import Any

from koinon.errors import FleetError


class Refusal(FleetError):
    """``status`` is the HTTP status, ``code`` a word of the protocol, ``more`` further fields of the answer."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.more = status, code, more

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"error": {"code": self.code, "message": str(self)}, **self.more}
