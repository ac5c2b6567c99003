"""What the options of ``koinon serve`` and ``join`` mean."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from koinon.cli.fleet import Place
from koinon.cli.roster import pinned
from koinon.errors import ConfigurationError
from koinon.fleet.participant.connection import Reach
from koinon.fleet.participant.floors import Floors
from koinon.fleet.service.settings import Settings
from koinon.fleet.wire.encrypted_terms import HolderLink
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.texts import NAME_RULE, is_name
from koinon.identity import versions


def settings(
    *, listen: str, url: str | None, client_listen: str | None, certificate: Path | None, key: Path | None,
    client_ca: Path | None, plain_http: bool, links: int, keyholders: Sequence[str],
    proxies: Sequence[str] = (), **same: Any,
) -> Settings:  # fmt: skip
    """Return how to serve. Raises ConfigurationError for options that leave less protected than they say."""
    host, port = address(listen)
    if plain_http and (certificate or client_ca):
        raise ConfigurationError(
            "--plain-http has no TLS to show --certificate in or to ask --client-ca's. Leave it out."
        )
    if client_listen and not client_ca:
        raise ConfigurationError("--client-listen asks for certificates: say by --client-ca FILE whose they must be.")
    return Settings(
        plain_http=plain_http,
        url=None if url is None else _url(url, plain_http=plain_http),
        version=versions()["koinon"] or "unknown",
        host=host,
        port=port,
        client_listen=None if client_listen is None else address(client_listen),
        certificate=_pair(certificate, key),
        client_authority=client_ca,
        invitations=links,
        keyholders=tuple(map(HolderLink.parse, keyholders)),
        proxies=_addresses(proxies),
        **same,
    )


def place(options: dict[str, Any]) -> Place:
    """Return whose data it is and where. Raises ConfigurationError for a name that no coordinator takes: a folder bears it."""
    name = options["name"] or socket.gethostname()
    if not is_name(name):
        raise ConfigurationError(f"{NAME_RULE} Give --name one; found {name!r}.")
    return Place(name=name, data=options["data"], folder=options["folder"])


def reach(link: str, options: dict[str, Any]) -> Reach:
    """Return how the coordinator is reached: through the proxy that is asked for, or that the environment names."""
    url = JoinLink.parse(link).url
    parts = urlsplit(url)
    around = proxy_bypass_environment(parts.netloc)
    proxy = options["proxy"] or (None if around else getproxies_environment().get(parts.scheme))
    if proxy and "://" not in proxy:  # as many programs take it
        proxy = f"http://{proxy}"
    pair = _pair(options["certificate"], options["key"])
    return Reach(url=url, proxy=proxy, certificate=pair, patience=options["patience"])


def floors(options: dict[str, Any]) -> Floors:
    """Return what the participant insists on."""
    roster = pinned(options["roster"], options["roster_key"])
    return Floors(
        cohort=options["minimum_cohort"],
        norm=options["largest_norm"],
        noise=options["require_noise"],
        rounds=options["most_rounds"],
        roster=roster,
    )


def limit_cores(count: int) -> None:
    """Let this process and all it starts use so many cores at most: any, so that not all parties of a machine share one."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, SystemRandom().sample(sorted(allowed), min(count, len(allowed))))


def _url(text: str, *, plain_http: bool) -> str:
    """Return the address that join links begin with."""
    try:
        parts = urlsplit(text)
        spoken = parts.netloc.encode("idna").decode()  # a name with umlauts as certificates and DNS know it: xn--...
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, a name that cannot be one
        known = None
    if not known or parts.query or parts.fragment:
        raise ConfigurationError(
            f"--url is the address as participants reach it, e.g. https://fed.example.org:8443; found {text!r}."
        )
    if parts.scheme == "http" and not plain_http:
        raise ConfigurationError(f"This coordinator speaks TLS: --url must begin with https://; found {text!r}.")
    return urlunsplit(parts._replace(netloc=spoken)).rstrip("/")


def _addresses(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of proxies: a name, or one that is mistyped, would never be that of a caller."""
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise ConfigurationError(
                f"--trusted-proxy is the IP address that the proxy calls from, e.g. 127.0.0.1; found {text!r}."
            ) from error
    return tuple(texts)


def address(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT. Raises ConfigurationError."""
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigurationError(f"An address is HOST:PORT, e.g. 0.0.0.0:8443; found {text!r}.")
    return host.strip("[]") or "0.0.0.0", int(port)


def _pair(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if (certificate is None) != (key is None):
        raise ConfigurationError("A certificate needs its key: give --certificate and --key together.")
    return None if certificate is None or key is None else (certificate, key)
