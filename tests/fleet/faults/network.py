"""A network namespace with one link to this machine's own, which can be taken down and up again."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Self

import pytest


class Namespace:
    """A namespace whose processes reach this machine as ``host`` and nothing else.

    ``prefix`` put before a command runs it inside. Skips the test where namespaces may not be made.
    """

    def __init__(self, number: int) -> None:
        self.name = f"koinon-{os.getpid()}-{number}"
        self._near, self._far = f"kn{os.getpid() % 100000}n{number}", f"kn{os.getpid() % 100000}f{number}"
        self.host = f"10.203.{number}.1"
        self._inside = f"10.203.{number}.2"
        self.prefix = ("ip", "netns", "exec", self.name)

    def __enter__(self) -> Self:
        if shutil.which("ip") is None:
            pytest.skip("network namespaces need the command ip (Debian: iproute2)")
        made = subprocess.run(
            ["ip", "netns", "add", self.name], capture_output=True, text=True, timeout=10, check=False
        )
        if made.returncode:
            pytest.skip(f"network namespaces are not permitted here: {made.stderr.strip()}")
        try:
            self._wire()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"a link between network namespaces is not permitted here: {error.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        for line in (["ip", "link", "del", self._near], ["ip", "netns", "del", self.name]):
            subprocess.run(line, capture_output=True, timeout=10, check=False)

    def _wire(self) -> None:
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far)
        _ip("link", "set", self._far, "netns", self.name)
        _ip("addr", "add", f"{self.host}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        for line in (
            ("addr", "add", f"{self._inside}/30", "dev", self._far),
            ("link", "set", self._far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *line)

    def down(self) -> None:
        """Take the link down: packets are lost without a word, as when a cable is pulled."""
        _ip("-n", self.name, "link", "set", self._far, "down")

    def up(self) -> None:
        """Put the link up again."""
        _ip("-n", self.name, "link", "set", self._far, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)
