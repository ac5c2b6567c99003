"""Load the App of a Python file, and change its fields by name."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import random
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from koinon import errors
from koinon.app import App
from koinon.cli.exit_status import AppFileError
from koinon.core.algorithm import Algorithm
from koinon.errors import ClientError, ConfigurationError

_MODULE = "koinon_app"


def load(path: Path) -> App:
    """Return the ``app`` of a file.

    Python's and numpy's generators are seeded first, so that initial weights the file draws are the same
    each time. Raises AppFileError with the file's traceback if it raises, ConfigurationError if it has no App.
    """
    random.seed(0)
    np.random.seed(0)
    spec = importlib.util.spec_from_file_location(_MODULE, path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is not a Python file. Give a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(path.resolve().parent))
    cloudpickle.register_pickle_by_value(module)  # workers cannot import it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's file raises is shown as its own
        raise AppFileError(_own_traceback(error, path)) from None
    app = getattr(module, "app", None)
    if not isinstance(app, App):
        found = [name for name, value in vars(module).items() if isinstance(value, App)]
        raise ConfigurationError(
            f"{path} has no App called app"
            + (f" (but one called {found[0]})" if found else "")
            + ". Write: app = kn.App(...)"
        )
    return app


def change(app: App, changes: Sequence[str]) -> tuple[App, Callable[[Algorithm], Algorithm]]:
    """Return the app with its own fields changed, and what to do to its algorithm.

    Each change is ``field=value``, e.g. ``stop.rounds=5``, ``work.epochs=2`` (a field of the algorithm),
    ``channel.0.norm=1.0``. Raises ConfigurationError naming the nearest field for an unknown one.
    """
    inner: list[tuple[str, str]] = []
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--set takes FIELD=VALUE; found {text!r}.")
        head, _, rest = name.partition(".")
        if head == "algorithm":
            inner.append((rest, value))
        elif head in {field.name for field in dataclasses.fields(App)}:
            app = _set(app, name, name, value, ())
        else:
            inner.append((name, value))
    beside = tuple(field.name for field in dataclasses.fields(App))

    def apply(algorithm: Algorithm) -> Algorithm:
        for name, value in inner:
            algorithm = _set(algorithm, name, name, value, beside)
        return algorithm

    return app, apply


def _set(record: Any, path: str, whole: str, text: str, beside: tuple[str, ...]) -> Any:
    """Return ``record`` with the field at ``path`` set; ``whole`` is the path as the user wrote it."""
    head, _, rest = path.partition(".")
    if isinstance(record, tuple) and head.isdigit() and int(head) < len(record):
        new = _set(record[int(head)], rest, whole, text, ()) if rest else _value(record[int(head)], text, whole)
        return (*record[: int(head)], new, *record[int(head) + 1 :])
    names = [field.name for field in dataclasses.fields(record)] if dataclasses.is_dataclass(record) else []
    if head not in names:
        near = difflib.get_close_matches(head, [*names, *beside], 1, 0.5)
        known = f"Did you mean {near[0]!r}?" if near else f"The fields there are {', '.join(names) or 'none'}."
        raise ConfigurationError(f"--set {whole}: there is no field {head!r} in {type(record).__name__}. {known}")
    old = getattr(record, head)
    return dataclasses.replace(record, **{head: _set(old, rest, whole, text, ()) if rest else _value(old, text, whole)})


def _value(old: Any, text: str, whole: str) -> Any:
    """Return the text as a value of the kind that stands there now."""
    if isinstance(old, Enum):
        values = [member.value for member in type(old)]
        if text not in values:
            raise ConfigurationError(f"--set {whole}: {text!r} is none of {', '.join(map(repr, values))}.")
        return type(old)(text)
    try:
        new = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        new = text
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if old is not None and new is not None and type(new) is not type(old):
        raise ConfigurationError(
            f"--set {whole}: {type(old).__name__} is asked for there (it is {old!r}); found {text!r}."
        )
    return new


def users_traceback(error: ClientError) -> str:
    """Return the traceback of what a client's own code raised, from where koinon called it; "" if there is none."""
    cause, own = error.__cause__, Path(errors.__file__).parent
    at = None if cause is None else cause.__traceback__
    while at is not None and Path(at.tb_frame.f_code.co_filename).is_relative_to(own):
        at = at.tb_next
    notes = "\n".join(getattr(error, "__notes__", ()))  # a worker's traceback travels as one
    return notes if cause is None else "".join(traceback.format_exception(type(cause), cause, at)).rstrip()


def _own_traceback(error: BaseException, path: Path) -> str:
    """Return the traceback from the app file's first line on: how it was loaded is nobody's concern."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code.co_filename != str(path.resolve()):
        at = at.tb_next
    return "".join(traceback.format_exception(type(error), error, at)).rstrip()
