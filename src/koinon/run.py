"""What a run leaves: the trained model, its history, its digest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from koinon import tree
from koinon.core.execution import Plan
from koinon.core.types import Variables
from koinon.errors import ConfigurationError
from koinon.privacy.hiding import simulated
from koinon.privacy.releases import Releases
from koinon.privacy.statement import PrivacyStatement
from koinon.report.history import History
from koinon.round.driver import Outcome
from koinon.store.blobs import pack
from koinon.tree import Tree


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run."""

    plan: Plan
    outcome: Outcome
    seed: int
    engine: str
    releases: Releases | None = None

    @cached_property
    def privacy(self) -> PrivacyStatement | None:
        """What may be claimed of all that was released about these clients; None where nothing adds noise.

        Where only the clients' own work adds any, that is what it says.
        """
        return None if self.releases is None else self.releases.statement(len(self.plan.data))

    @property
    def promises(self) -> list[str]:
        """All that is said of the run's privacy, a line each: the statement, and what single updates are hidden by."""
        said = [] if self.privacy is None else self.privacy.lines()
        return [*said, *simulated(self.plan.algorithm)]

    @property
    def charged(self) -> tuple[tuple[str, str, str], ...]:
        """What the ledger holds, for people: how many releases, of which noise multiplier, at which sampling rate."""
        spent = {} if self.releases is None else self.releases.spent
        return tuple((f"{n:,}", f"{event.multiplier:.4g}", f"{event.rate:.4g}") for event, n in spent.items())

    @property
    def variables(self) -> Variables:
        """The final model: ``params`` and ``state``."""
        return self.plan.algorithm.server.variables(self.outcome.state.server)

    @property
    def params(self) -> Tree:
        """The final parameters, a nested dict of numpy arrays."""
        return self.variables["params"]

    @property
    def model(self) -> Any:
        """The final model as it was given: a new Keras model for Keras, the parameters for functions."""
        return self.plan.model.trained(self.variables)

    @property
    def best(self) -> Variables:
        """The model of the best judged round (by what ``Stop.monitor`` watches); the final one if none was judged."""
        best: Variables = self.outcome.state.best
        return best if tree.leaves(best) else self.variables

    @property
    def best_round(self) -> int:
        """The round of :attr:`best`."""
        return self.outcome.state.watch.best_round or self.rounds

    @property
    def best_model(self) -> Any:
        """The model of the best round as it was given."""
        return self.plan.model.trained(self.best)

    @property
    def history(self) -> History:
        """Every round's figures: rows, and a frame."""
        return History(self.outcome.history)

    @property
    def stopped(self) -> str:
        """Why the run ended: target, converged, rounds, time, budget or diverged, and the details."""
        return self.outcome.stopped

    @property
    def rounds(self) -> int:
        """How many rounds were committed."""
        return self.outcome.state.round

    @property
    def seconds(self) -> float:
        """The wall time of all rounds, over all sessions of the run."""
        return sum(record.seconds for record in self.outcome.history)

    @property
    def metrics(self) -> dict[str, float]:
        """The figures of the last round."""
        return dict(self.outcome.history[-1].figures) if self.outcome.history else {}

    @property
    def clients(self) -> dict[str, dict[str, float]]:
        """Each client's own held-out figures under the model of the last evaluation."""
        return self.outcome.state.judged

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the final parameters: name, dtype, shape and bytes, in name order."""
        return tree.digest(self.params)

    @property
    def settings(self) -> dict[str, str]:
        """What was run, for people."""
        algorithm = self.plan.algorithm
        parts = {
            "algorithm": algorithm.name,
            "client work": algorithm.work,
            "channel": ", ".join(repr(step) for step in algorithm.channel) or "as it is",
            "aggregator": algorithm.aggregator,
            "server": algorithm.server,
            "sampler": algorithm.sampler,
            "clients": f"{len(self.plan.data):,}",
            "parameters": f"{tree.size(self.params):,}",
            "engine": self.engine,
            "seed": self.seed,
        }
        return {name: value if isinstance(value, str) else repr(value) for name, value in parts.items()}

    def plot(self, names: tuple[str, ...] | None = None) -> Any:
        """Return the curves as a figure that notebooks show and ``.save("curves.svg")`` writes."""
        from koinon.report.curves import plot

        return plot(self.history, names)

    def save(self, path: str | Path, *, best: bool = False) -> Path:
        """Write the final (or best) model: ``.keras`` for a Keras model, ``.safetensors`` for any."""
        target, variables = Path(path), self.best if best else self.variables
        if target.suffix == ".safetensors":
            target.write_bytes(pack({"params": variables["params"], "state": variables["state"]}))
            return target
        model = self.plan.model.trained(variables)
        if target.suffix != ".keras" or not hasattr(model, "save"):
            raise ConfigurationError(
                f"A model of this kind cannot be saved as {target.suffix or 'a file without suffix'!r}. "
                f"Use a path that ends in {'.keras or ' if hasattr(model, 'save') else ''}.safetensors."
            )
        model.save(target)
        return target

    def __repr__(self) -> str:
        figures = ", ".join(f"{name}={self.metrics[name]:.4g}" for name in self._shown())
        return f"<Run of {self.plan.algorithm.name}: {self.rounds} rounds, {figures or 'no figures'}; {self.stopped}>"

    def _repr_html_(self) -> str:
        from html import escape

        figure = self.plot() if self.rounds else None
        return f"<p>{escape(repr(self)[1:-1])}</p>{figure.svg if figure is not None else ''}"

    def _shown(self) -> list[str]:
        wanted = ("train_loss", "loss", "accuracy", "test_loss", "test_accuracy")
        return [name for name in wanted if np.isfinite(self.metrics.get(name, np.nan))]
