"""A folder that one process has at a time."""

import errno
import os
from pathlib import Path

import pytest

from koinon.errors import StoreError
from koinon.store.lock import lock


def test_a_full_disk_is_said_and_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StoreError, match="cannot be written: No space left on device. Make room there"):
            lock(tmp_path)
    os.close(lock(tmp_path))
