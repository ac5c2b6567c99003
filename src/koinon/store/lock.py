"""A folder that one process has at a time: the system frees it when that process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from koinon.errors import StoreError


def lock(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock until it is closed; the folder is made if there is none.

    Raises StoreError that names the process which has it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{folder} cannot be used: {error.strerror}. Choose another folder.") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(held, 32).decode(errors="replace").strip() or "unknown"
        os.close(held)
        raise StoreError(
            f"{folder} is in use by another process (number {holder}). Wait for it, stop it, or choose another folder."
        ) from error
    try:
        os.ftruncate(held, 0)
        os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(held)
        raise StoreError(
            f"{folder} cannot be written: {error.strerror}. Make room there, or choose another folder."
        ) from error
    return held
