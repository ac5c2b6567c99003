"""The environment of a process that koinon owns: its command line and its workers, never a user's program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_ONE_THREAD = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` with one computing thread and a cache of compiled programs.

    A second thread would change the last bits of some sums (``NPROC`` is what XLA reads). The cache lies in
    ``$XDG_CACHE_HOME/koinon/xla`` (``~/.cache`` unless set); ``JAX_COMPILATION_CACHE_DIR`` overrides it.
    """
    home = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".cache")
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(home) / "koinon" / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {**cache, **environment, **dict.fromkeys(_ONE_THREAD, "1")}
