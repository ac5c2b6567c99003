"""Trackers from what a command line says: ``tensorboard:FOLDER``, ``mlflow:URI/EXPERIMENT``, ``wandb:PROJECT``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from koinon.errors import ConfigurationError
from koinon.report.tracking.mlflow import MLflow
from koinon.report.tracking.sink import Sink
from koinon.report.tracking.tensorboard import TensorBoard
from koinon.report.tracking.wandb import WeightsAndBiases


def sinks(texts: Iterable[str]) -> tuple[Sink, ...]:
    """Return a sink for each text, to be closed by the caller.

    A sink takes one run after the other: runs that go on at the same time need sinks of their own. Raises
    ConfigurationError for a text that says nothing known, UnsupportedError for a package that is missing.
    """
    return tuple(_sink(text) for text in texts)


def _sink(text: str) -> Sink:
    name, _, where = text.partition(":")
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, 1)
        raise ConfigurationError(
            f"There is no tracker {name!r}. {f'Did you mean {near[0]!r}? ' if near else ''}"
            f"Use {', '.join(f'{kind}:{form}' for kind, (form, _) in _KINDS.items())}."
        )
    form, make = _KINDS[name]
    if (sink := make(where)) is None:
        raise ConfigurationError(f"The tracker {text!r} does not say where to. Use {name}:{form}.")
    return sink


def _tensorboard(where: str) -> Sink | None:
    return TensorBoard(where) if where else None


def _mlflow(where: str) -> Sink | None:
    server, _, experiment = where.rpartition("/")
    scheme, _, host = server.partition("://")
    return MLflow(server, unquote(experiment)) if scheme and host and experiment else None


def _wandb(where: str) -> Sink | None:
    entity, _, project = where.rpartition("/")
    return WeightsAndBiases(project, entity=entity or None) if project else None


_KINDS: dict[str, tuple[str, Callable[[str], Sink | None]]] = {
    "tensorboard": ("FOLDER", _tensorboard),
    "mlflow": ("http://HOST:PORT/EXPERIMENT", _mlflow),
    "wandb": ("PROJECT", _wandb),
}
