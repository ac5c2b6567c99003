"""The HTTP proxy that a participant's connections go through."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from koinon.errors import FleetError


def proxy_address(text: str) -> str:
    """Return a proxy's address without the name and the password in it."""
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def proxy_pool(text: str, **options: Any) -> urllib3.ProxyManager:
    """Return a pool of connections through the proxy ``http://name:password@host:port``. Raises FleetError."""
    where = proxy_address(text)
    try:
        return urllib3.ProxyManager(where, proxy_headers=proxy_login(text), **options)
    except urllib3.exceptions.LocationValueError as error:  # a kind of proxy or an address that there is not
        raise FleetError(
            f"The proxy {where} cannot be used: {error}. Give it as http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT in "
            "--proxy or HTTPS_PROXY; NO_PROXY names hosts that are dialled without it."
        ) from error


def proxy_login(text: str) -> dict[str, str]:
    """Return what the proxy is told of who asks."""
    parts = urlsplit(text)
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
