"""The join link: where the coordinator is, whose certificate it shows, and a token that works once."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from koinon.errors import ConfigurationError
from koinon.fleet.wire.texts import is_digest


@dataclass(frozen=True)
class JoinLink:
    """``https://HOST:PORT/join#ca=FINGERPRINT&token=TOKEN``. What follows ``#`` never goes over the network."""

    url: str  # https://host:port
    token: str
    authority: str | None  # SHA-256 of the coordinator's own CA in hex; None: one the system trusts

    @classmethod
    def parse(cls, text: str) -> JoinLink:
        """Return the link of a text. Raises ConfigurationError that says what is missing."""
        parts = urlsplit(text.strip())
        given = {name: values[-1] for name, values in parse_qs(parts.fragment).items()}
        if parts.scheme not in ("https", "http") or not parts.hostname or not given.get("token"):
            raise ConfigurationError(
                f"{text[:60]!r} is no join link. It looks like https://HOST:PORT/join#ca=...&token=..., as koinon serve "
                "and koinon invite print it; put it in quotes, because of its # and &."
            )
        authority = given.get("ca")
        if authority is not None and not is_digest(authority):
            raise ConfigurationError("The join link's ca= must be 64 hex digits. It was cut short: copy it again.")
        prefix = parts.path.removesuffix("/").removesuffix("/join")
        return cls(f"{parts.scheme}://{parts.netloc}{prefix}", given["token"], authority)

    def __str__(self) -> str:
        given = {"token": self.token} if self.authority is None else {"ca": self.authority, "token": self.token}
        return f"{self.url}/join#{urlencode(given)}"
