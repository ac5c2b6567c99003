"""What a coordinator serves, and how and where."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from koinon.core.events import Listener
from koinon.fleet.service.listening import EVERYWHERE, address
from koinon.fleet.wire.encrypted_terms import HolderLink
from koinon.privacy.budget import PrivacyBudget
from koinon.round.training import FederatedTraining

CHUNK_BYTES = 4 << 20
OPERATOR_FILE = "admin.json"


@dataclass(frozen=True, kw_only=True)
class ServedApp:
    """An app to serve, with every choice made."""

    name: str
    agreement: Mapping[str, Any]  # what every party must have, too
    training: FederatedTraining  # over whatever data; the run's members take its place
    engine: str
    listen: Listener
    privacy: PrivacyBudget | None = None
    privacy_test_mode: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a coordinator serves."""

    folder: Path
    version: str
    host: str = "127.0.0.1"
    port: int = 8443
    url: str | None = None  # as participants reach it; None: from host and port
    database: str | None = None
    blobs: str | None = None  # URL of fsspec where finished models are copied to
    plain_http: bool = False
    certificate: tuple[Path, Path] | None = None  # the user's own, with its key
    client_authority: Path | None = None  # mTLS: who signs the clients' certificates
    client_listen: tuple[str, int] | None = None  # where they are asked for; None: everywhere
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()  # addresses whose word on who calls is taken: X-Forwarded-For
    invitations: int = 1
    roster: Path | None = None  # who may take part in secure sums
    keyholders: tuple[HolderLink, ...] = ()  # who decrypts encrypted ones
    stay: bool = False
    chunk_bytes: int = CHUNK_BYTES


@dataclass(frozen=True)
class Addresses:
    """Where a coordinator is reached: by its parties, by a browser, and by the operator's commands beside it."""

    parties: str
    page: str
    operator: str

    @classmethod
    def of(cls, settings: Settings, port: int, clients_port: int | None = None) -> Addresses:
        """Return them for the ports that are listened on, the second where clients must show certificates.

        The operator's commands take no way out of the machine: the parties' address may lead nowhere from inside. They know the
        certificate that is shown, so it need not name that way.
        """
        scheme = "http" if settings.plain_http else "https"
        parties = settings.url or address(scheme, settings.host, clients_port or port)
        page = parties
        if clients_port is not None:  # a browser has no certificate to show
            page = address(scheme, urlsplit(parties).hostname or settings.host, port)
        beside = "localhost" if settings.host in EVERYWHERE else settings.host
        return cls(parties, page, address(scheme, beside, port))

    @property
    def read_on_the_way(self) -> bool:
        """Whether parties speak to it over a network without TLS."""
        parts = urlsplit(self.parties)
        return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")

    def hosts(self) -> list[str]:
        """Return every name that a certificate has to have."""
        named = [urlsplit(url).hostname or "" for url in (self.parties, self.page, self.operator)]
        return list(dict.fromkeys(["localhost", "127.0.0.1", socket.gethostname(), *named]))
