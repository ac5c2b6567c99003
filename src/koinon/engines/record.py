"""A record's float fields as arguments of a compiled program: another learning rate is not another program."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


def split(record: Any) -> tuple[Any, dict[str, np.float32]]:
    """Return a hashable skeleton of a record and its float fields by path.

    Whole numbers, truth values and strings stay in the skeleton: they shape the program.
    """
    floats: dict[str, np.float32] = {}
    return _skeleton(record, "", floats), floats


def join(record: Any, floats: dict[str, Any], path: str = "") -> Any:
    """Return the record with its float fields replaced, without running its validation (they are traced)."""
    if isinstance(record, float):
        return floats[path]
    if isinstance(record, tuple):
        return tuple(join(item, floats, f"{path}.{i}") for i, item in enumerate(record))
    if not _is_record(record):
        return record
    new = object.__new__(type(record))
    for field in dataclasses.fields(record):
        object.__setattr__(new, field.name, join(getattr(record, field.name), floats, f"{path}.{field.name}"))
    return new


def _skeleton(record: Any, path: str, floats: dict[str, np.float32]) -> Any:
    if isinstance(record, float):
        floats[path] = np.float32(record)
        return "float"
    if isinstance(record, tuple):
        return tuple(_skeleton(item, f"{path}.{i}", floats) for i, item in enumerate(record))
    if not _is_record(record):
        return record
    fields = tuple(
        (field.name, _skeleton(getattr(record, field.name), f"{path}.{field.name}", floats))
        for field in dataclasses.fields(record)
    )
    return (type(record), fields)


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
