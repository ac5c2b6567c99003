"""The ranges of a record's fields, checked once, when it is made.

A field is kept as a plain number: numpy's own would widen float32 arithmetic, and a whole number where a real
one belongs would make another compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from koinon.errors import ConfigurationError


def positive(record: Any, *fields: str) -> None:
    """Raise ConfigurationError unless each field is a finite number above zero."""
    _keep(record, fields, float, lambda value: 0 < value < float("inf"), "a number above 0")


def not_negative(record: Any, *fields: str) -> None:
    """Raise ConfigurationError unless each field is a finite number from zero."""
    _keep(record, fields, float, lambda value: 0 <= value < float("inf"), "a number from 0")


def share(record: Any, *fields: str) -> None:
    """Raise ConfigurationError unless each field lies in [0, 1)."""
    _keep(record, fields, float, lambda value: 0 <= value < 1, "a number in [0, 1)")


def whole(record: Any, *fields: str, least: int = 1) -> None:
    """Raise ConfigurationError unless each field is a whole number from ``least``."""
    wanted = f"a whole number from {least}"
    _keep(record, fields, int, lambda value: isinstance(value, Integral) and int(value) >= least, wanted)


def whole_or_none(record: Any, *fields: str) -> None:
    """Raise ConfigurationError unless each field is None or a whole number from 1."""
    whole(record, *(name for name in fields if getattr(record, name) is not None))


def _keep(
    record: Any, fields: tuple[str, ...], kind: Callable[[Any], float], fits: Callable[[Any], bool], wanted: str
) -> None:
    for name in fields:
        value = getattr(record, name)
        if not isinstance(value, Real) or isinstance(value, bool) or not fits(value):
            raise ConfigurationError(f"{type(record).__name__}.{name} must be {wanted}; found {value!r}.")
        object.__setattr__(record, name, kind(value))
