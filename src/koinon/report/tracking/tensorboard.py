"""TensorBoard: event files in a folder, one subfolder a run, written by tensorboardX without TensorFlow or PyTorch.

Every session of a run writes all of it anew into a file of its own, which begins by purging what older files hold.
So a resumed run has neither a hole nor a double.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from koinon.core.events import RoundRecord, RunFinished, RunStarted
from koinon.report.tracking.sink import Sink, figures, label, missing

_FLUSH_SECONDS = 1


class TensorBoard(Sink):
    """Writes every figure as a scalar by round; the identity, the digest and why it stopped as texts.

    ``folder`` is what ``tensorboard --logdir`` is given; a run goes into ``folder/NAME-RUN``. Raises
    UnsupportedError without tensorboardX.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise missing("TensorBoard", "tensorboardX") from error
        super().__init__(f"TensorBoard({str(folder)!r})")
        self._folder = Path(folder)
        self._open = tensorboardX.SummaryWriter
        self._writer: Any = None
        self._round = 0

    def begin(self, started: RunStarted) -> None:
        """Open a file for the run, whose content stands for all that was written of it before."""
        folder = self._folder / re.sub(r"[^\w.-]+", "_", label(started))
        self._writer, self._round = self._open(str(folder), purge_step=0, flush_secs=_FLUSH_SECONDS), 0
        about = json.dumps({"clients": started.clients, **started.identity}, indent=2)
        self._writer.add_text("identity", f"```json\n{about}\n```", 0)
        self.log(started.past)

    def log(self, records: Sequence[RoundRecord]) -> None:
        """Write the rounds' figures. One that is not finite cannot be drawn and is left out."""
        for record in records:
            self._round = record.round
            for name, value in figures(record).items():
                if math.isfinite(value):
                    self._writer.add_scalar(name, value, record.round)

    def end(self, finished: RunFinished | None) -> None:
        """Write how the run ended, and close the file."""
        if finished is not None:
            self._writer.add_text("stopped", finished.stopped, self._round)
            self._writer.add_text("digest", finished.digest, self._round)
        self._writer.close()
