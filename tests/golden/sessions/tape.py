"""A session as text: what one client sent and what it was answered, call by call, in the order of the calls.

    > POST /v1/challenge
    {"client":"c-1"}
    < 200
    {"challenge":"..."}

Bodies are canonical JSON, or lines of base64. Of the headers only those that the protocol speaks of are kept.
"""

from __future__ import annotations

import base64
import http.client
import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from koinon.fleet.wire.receipts import canonical

SENT = ("Authorization", "Content-Type", "Range", "If-None-Match")
ANSWERED = ("Content-Type", "ETag", "Content-Range", "Accept-Ranges", "Retry-After")
SECONDS = 20.0
_WIDTH = 116


@dataclass(frozen=True)
class Message:
    """One half of a call: its first line (method and path, or status), headers that matter, body."""

    line: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON, or its bytes if it is none."""
        return json.loads(self.body) if _is_json(self.headers) and self.body else self.body


@dataclass(frozen=True)
class Call:
    """What was sent and what came back."""

    sent: Message
    answered: Message


def depends(sent: Message) -> bool:
    """Return whether the answer depends on how far the coordinator has come by itself."""
    return "/work?" in sent.line or "/receipts?" in sent.line


def make(port: int, sent: Message) -> Call:
    """Make a call to a server on this machine and return it with its answer."""
    method, path = sent.line.split(" ")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request(method, path, sent.body or None, dict(sent.headers))
        answer = connection.getresponse()
        headers = {name: value for name in ANSWERED if (value := answer.headers.get(name)) is not None}
        return Call(sent, Message(str(answer.status), headers, answer.read()))
    finally:
        connection.close()


def written(about: str, calls: Iterable[Call]) -> str:
    """Return a session as text."""
    parts = [textwrap.indent(about.strip(), "# ", lambda line: True)]
    for call in calls:
        parts.append("\n".join([*_lines(">", call.sent), *_lines("<", call.answered)]))
    return "\n\n".join(parts) + "\n"


def read(text: str) -> list[Call]:
    """Return the calls of :func:`written`."""
    calls = []
    for part in text.strip().split("\n\n"):
        if not part.startswith("#"):
            sent, _, answered = part.partition("\n< ")
            calls.append(Call(_message(sent.removeprefix("> ")), _message(answered)))
    return calls


def _lines(mark: str, message: Message) -> list[str]:
    headers = [f"{mark} {name}: {value}" for name, value in message.headers.items()]
    body = canonical(message.json) if isinstance(message.json, dict) else base64.b64encode(message.body).decode()
    wrapped = [body] if isinstance(message.json, dict) else textwrap.wrap(body, _WIDTH)
    return [f"{mark} {message.line}", *headers, *wrapped]


def _message(text: str) -> Message:
    line, *rest = text.split("\n")
    headers = dict(row[2:].split(": ", 1) for row in rest if row[:2] in ("> ", "< "))
    body = "".join(row for row in rest if row[:2] not in ("> ", "< "))
    return Message(line, headers, body.encode() if _is_json(headers) else base64.b64decode(body))


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type") == "application/json"


def differs(recorded: Any, found: Any, where: str = "") -> str | None:
    """Return where an answer lacks or changes what was recorded.

    It may have more fields, as the protocol allows, and tell people the same in other words.
    """
    if where.endswith(".error.message") and isinstance(found, str):
        return None
    if isinstance(recorded, dict) and isinstance(found, dict):
        parts = ((f"{where}.{name}", value, found.get(name, "nothing")) for name, value in recorded.items())
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        parts = ((f"{where}[{i}]", *pair) for i, pair in enumerate(zip(recorded, found, strict=True)))
    else:
        same = type(recorded) is type(found) and recorded == found
        return None if same else f"{where or 'the body'}: recorded {recorded!r:.200}, found {found!r:.200}"
    return next((found for found in (differs(one, other, at) for at, one, other in parts) if found is not None), None)
