"""What makes two runs the same run: everything that can change a bit of the result, as JSON."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from enum import Enum
from importlib import metadata
from typing import Any

import numpy as np

from koinon.core.execution import Plan
from koinon.models.describe import describe_function
from koinon.privacy.budget import PrivacyBudget
from koinon.round.stopping import Stop
from koinon.round.training import Evaluation

_LIBRARIES = ("koinon", "numpy", "jax", "jaxlib", "keras")


def identity(plan: Plan, evaluation: Evaluation, seed: int, engine: str) -> dict[str, Any]:
    """Return the identity of a run.

    When it stops is not part of it: a run may go on under another ``stop``. Nor are its runtime and the
    number of workers: they cannot change a bit. The first weights are not: a run that goes on has its own.
    """
    return {
        **_training(plan, evaluation, seed, engine),
        "data": plan.data.fingerprint(),
        "test": None if plan.test is None else plan.test.fingerprint(),
        "version": versions(),
    }


def agreement(
    plan: Plan,
    evaluation: Evaluation,
    seed: int,
    engine: str,
    stop: Stop,
    privacy: PrivacyBudget | None,
    *,
    secret: bool,
) -> dict[str, Any]:
    """Return what parties agree on before they train together: the resolved app, every override included.

    Nobody's data is in it, nor what is installed where. ``privacy`` is the budget that ends the run, ``secret`` whether
    its keys are.
    """
    budget = None if privacy is None else {"epsilon": privacy.epsilon, "delta": privacy.delta}
    return {
        **_training(plan, evaluation, seed, engine),
        "stop": describe(stop),
        "privacy": {"budget": budget, "secret": secret},
        "koinon": versions()["koinon"],
    }


def _training(plan: Plan, evaluation: Evaluation, seed: int, engine: str) -> dict[str, Any]:
    return {
        "algorithm": describe(plan.algorithm),
        "model": plan.model.describe(),
        "seed": seed,
        "engine": engine,
        "evaluation": describe(evaluation),
    }


def versions() -> dict[str, str | None]:
    """Return the installed versions of the libraries whose change may change bits; nothing is imported."""
    found: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def describe(value: Any) -> Any:
    """Return a record as JSON: its type's name and its fields; a user's own type with a digest of its source."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic | np.ndarray):
        return np.asarray(value).tolist()
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): describe(value[name]) for name in sorted(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **_source(type(value)), **fields}
    if inspect.isroutine(value):
        return describe_function(value)
    return {
        "type": type(value).__name__,
        **_source(type(value)),
        **describe(vars(value) if hasattr(value, "__dict__") else {}),
    }


def _source(kind: type) -> dict[str, Any]:
    if kind.__module__.partition(".")[0] == "koinon":
        return {}  # the version stands for koinon's own code
    return {"source": describe_function(kind)["source"]}
