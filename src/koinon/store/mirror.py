"""Copies of a run's blobs at a URL of fsspec: made in the background, fetched where a blob is missing or damaged here.

No round waits for a copy. One that fails is told, tried again and, in the end, left to the next round.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from koinon.errors import ConfigurationError
from koinon.store.blobs import Blobs

_TRIES = 8
_LONGEST_PAUSE_SECONDS = 60.0
_FETCH_SECONDS = 600.0
CLOSING_SECONDS = 30.0
_LOG = logging.getLogger("koinon.store")


class Mirror:
    """A folder at a URL that holds copies of some of a run's blobs, and nothing else of ours."""

    def __init__(self, blobs: Blobs, url: str) -> None:
        """Raises ConfigurationError for a URL that cannot be used."""
        self._blobs = blobs
        self._files, self._folder = _opened(url)
        self._tell: Callable[[str], None] = _LOG.error
        self._changed = threading.Condition()
        self._wanted: frozenset[str] | None = None  # None: nothing to do
        self._there: frozenset[str] = frozenset()  # what this process has seen there, whole
        self._closing = False
        self._thread: threading.Thread | None = None

    def on_trouble(self, tell: Callable[[str], None]) -> None:
        """Call ``tell`` with what went wrong, from any thread."""
        self._tell = tell

    def want(self, names: Iterable[str]) -> None:
        """Have these blobs there before long, and no others. Returns at once."""
        with self._changed:
            self._wanted = frozenset(names)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="copies of blobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def fetch(self, name: str) -> bool:
        """Bring a blob from there and return whether it is here now, whole. Waits for 10 minutes at most."""
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(self._fetched(name)), name="a blob's copy", daemon=True)
        thread.start()
        thread.join(_FETCH_SECONDS)
        if thread.is_alive():
            self._tell(f"The copy of blob {name[:16]}... did not come within {_FETCH_SECONDS:g} s.")
        return found == [True]

    def close(self) -> None:
        """Wait until what is wanted is there, for 30 s at most. Safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)
            if self._thread.is_alive():
                self._tell("Not everything was copied before the end. The next start copies it.")

    def _work(self) -> None:
        while (names := self._next()) is not None:
            for number in range(_TRIES):
                try:
                    self._bring(names)
                    break
                except Exception as error:  # noqa: BLE001 - whatever a file system's library raises, the run goes on
                    pause = min(2.0**number, _LONGEST_PAUSE_SECONDS)
                    last = number == _TRIES - 1
                    then = "with the next round" if last else f"in {pause:g} s"
                    self._tell(f"A model cannot be copied to --blobs: {_short(error)}. It is tried again {then}.")
                if last or self._newer(pause):
                    break

    def _next(self) -> frozenset[str] | None:
        """Return what is wanted once something is; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted is not None or self._closing)
            wanted, self._wanted = self._wanted, None
            return wanted

    def _newer(self, seconds: float) -> bool:
        """Wait; return at once when something else is wanted."""
        with self._changed:
            return self._changed.wait_for(lambda: self._wanted is not None, seconds)

    def _bring(self, names: frozenset[str]) -> None:
        self._files.makedirs(self._folder, exist_ok=True)
        self._files.invalidate_cache()
        for name in names - self._there:
            self._put(name)
        if names <= self._there:  # else the older ones are still needed
            for path in map(PurePosixPath, self._files.ls(self._folder, detail=False)):
                if path.name == f"{path.stem}.safetensors" and path.stem not in names:
                    self._files.rm_file(f"{self._folder}/{path.name}")
            self._there = names

    def _put(self, name: str) -> None:
        """Copy a blob; one that is gone here belongs to a round that is over."""
        here, there = self._blobs.path(name), self._path(name)
        if here.exists():
            if not self._files.exists(there) or self._files.size(there) != here.stat().st_size:
                self._files.put_file(str(here), there)
            self._there |= {name}

    def _fetched(self, name: str) -> bool:
        here = self._blobs.path(name)
        beside = here.with_suffix(".fetched")
        try:
            self._files.get_file(self._path(name), str(beside))
            if _digest(beside) != name:
                raise ValueError("its content does not match its name")
            beside.replace(here)
        except Exception as error:  # noqa: BLE001 - whatever a file system's library raises
            beside.unlink(missing_ok=True)
            self._tell(f"Blob {name[:16]}... is missing or damaged, and so is its copy: {_short(error)}.")
            return False
        _LOG.warning("Blob %s... was missing or damaged; it was fetched from its copy.", name[:16])
        return True

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.safetensors"


def _opened(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise ConfigurationError("--blobs needs fsspec. Run: pip install 'koinon[remote]'") from error
    try:
        files, folder = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(
            f"--blobs cannot be used: {error}. Give a URL of fsspec, e.g. s3://bucket/folder or file:///srv/copies."
        ) from error
    return files, str(folder).rstrip("/")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
