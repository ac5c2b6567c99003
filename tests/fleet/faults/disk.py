"""A small file system of its own, that can be filled and emptied again."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest


class SmallDisk:
    """A tmpfs of ``megabytes`` mounted at ``folder``. Skips the test where mounting is not permitted."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._size = f"size={megabytes}m"
        self._ballast = folder / "ballast"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        line = ["mount", "-t", "tmpfs", "-o", self._size, "tmpfs", str(self.folder)]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=10, check=False)
        except FileNotFoundError:
            pytest.skip("a small disk needs the command mount")
        if done.returncode:
            pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, timeout=10, check=True)

    def fill(self, *, but: int = 0) -> None:
        """Fill what is free with ballast, but for so many bytes."""
        free = os.statvfs(self.folder)
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):  # others write at the same time
            file.write(b"\0" * max(free.f_bavail * free.f_frsize - but, 0))

    def make_room(self) -> None:
        """Take the ballast out."""
        self._ballast.unlink()
