"""Weights & Biases: one tracked run per run, online or into a folder that ``wandb sync`` uploads later.

Online, a resumed run goes on under its identifier from the first round that the server lacks. Offline nobody can
be asked, so every session writes the whole run into an offline folder of its own, all with one identifier.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from koinon.core.events import RoundRecord, RunFinished, RunStarted
from koinon.errors import ConfigurationError, UnsupportedError
from koinon.report.tracking.sink import Sink, figures, label, missing

_SECONDS = 10.0  # for W&B to open or to close a run: less than close() waits, so that W&B says what went wrong
_OFFLINE = ("offline", "dryrun", "disabled")


class WeightsAndBiases(Sink):
    """Logs every figure by round, the identity as configuration, digest and why it stopped in the summary.

    Only that leaves the machine: no source code, console output, host name, package list or system metrics, nor
    error reports unless ``WANDB_ERROR_REPORTING`` says so. ``folder`` is where its files go, ``wandb/`` below it.
    ``WANDB_MODE=offline`` is the same as ``offline=True``. Raises UnsupportedError without wandb or, online,
    without a key: it never asks for one.
    """

    def __init__(
        self, project: str, *, entity: str | None = None, folder: str | Path = ".", offline: bool = False
    ) -> None:
        if not project:
            raise ConfigurationError("Weights & Biases needs a project, and was given an empty name.")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        try:
            import wandb
        except ImportError as error:
            raise missing("Weights & Biases", "wandb") from error
        self._offline = offline or os.environ.get("WANDB_MODE") in _OFFLINE
        if not self._offline and not wandb.login(verify=False, prompt=False):
            raise UnsupportedError(
                "Weights & Biases was asked for, but has no key. Run 'wandb login', or set WANDB_API_KEY, "
                "or WANDB_MODE=offline to upload later with 'wandb sync'."
            )
        super().__init__(f"WeightsAndBiases({project!r})")
        self._project, self._entity, self._folder = project, entity, Path(folder)
        self._wandb: Any = wandb
        self._run: Any = None

    def begin(self, started: RunStarted) -> None:
        """Open the run under its identifier, and log the rounds it lacks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=self._project,
            entity=self._entity,
            dir=str(self._folder),
            id=started.run,
            name=label(started),
            config={"clients": started.clients, **started.identity},
            mode="offline" if self._offline else "online",
            resume=None if self._offline else "allow",
            reinit="create_new",
            settings=self._settings(),
        )
        self.log([record for record in started.past if record.round >= self._run.step])

    def log(self, records: Sequence[RoundRecord]) -> None:
        """Log the rounds."""
        for record in records:
            self._run.log(figures(record), step=record.round, commit=True)

    def end(self, finished: RunFinished | None) -> None:
        """Log how the run ended; one that diverged or was cut short has failed."""
        if finished is not None:
            self._run.summary.update({"stopped": finished.stopped, "digest": finished.digest})
        failed = finished is None or finished.stopped.startswith("diverged")
        self._run.finish(exit_code=int(failed))

    def _settings(self) -> Any:
        return self._wandb.Settings(
            silent=True,
            host="",
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            init_timeout=_SECONDS,
            finish_timeout=_SECONDS,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
