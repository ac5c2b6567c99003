"""Where a server listens, and the address by which others reach it there."""

from __future__ import annotations

import socket

from koinon.errors import FleetError

EVERYWHERE = ("0.0.0.0", "::")
_MOST_WAITING = 2048


def listening(host: str, port: int, who: str) -> socket.socket:
    """Return a socket that listens, at a free port if that is 0. Raises FleetError, which says ``who`` cannot."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise FleetError(
            f"{who} cannot listen on {host}:{port}: {error.strerror}. Choose another --listen HOST:PORT."
        ) from error
    bound.listen(_MOST_WAITING)
    return bound


def address(scheme: str, host: str, port: int) -> str:
    """Return the URL of what listens on a host: by this machine's name where that is everywhere."""
    host = socket.gethostname() if host in EVERYWHERE else host
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
