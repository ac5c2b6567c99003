"""Names of Keras variables and layers that do not depend on how many were made before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_COUNTER = re.compile(r"_\d+$")
_ACCIDENTAL = ("shared_object_id", "build_config", "optimizer")


def variable_names(variables: Sequence[Any]) -> list[str]:
    """Return ``position_layer_variable`` for each: ``000_dense_kernel``. The position makes them unique and ordered."""
    width = max(3, len(str(len(variables))))
    names = []
    for place, variable in enumerate(variables):
        layer = variable.path.split("/")[-2] if "/" in variable.path else ""
        parts = (f"{place:0{width}d}", _COUNTER.sub("", layer), variable.name)
        names.append("_".join(part for part in parts if part).replace(".", "_"))
    return names


def canonical(config: Any) -> Any:
    """Return a model's configuration with its names numbered by appearance: the same for the same architecture."""
    found: dict[str, str] = {}
    _collect(config, found)
    return _renamed(config, found)


def _collect(value: Any, found: dict[str, str]) -> None:
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(name, str) and name not in found:
            found[name] = f"{_COUNTER.sub('', name)}#{len(found)}"
        for item in value.values():
            _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)


def _renamed(value: Any, found: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _renamed(item, found) for name, item in value.items() if name not in _ACCIDENTAL}
    if isinstance(value, list):
        return [_renamed(item, found) for item in value]
    return found.get(value, value) if isinstance(value, str) else value
