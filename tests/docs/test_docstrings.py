"""The examples in docstrings print what they say, on the floors that need no framework."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pages
import pytest

PACKAGE = pages.ROOT / "src" / "koinon"
NEEDS_JAX = ("jax", "keras")


def _modules() -> list[str]:
    paths = [p.relative_to(PACKAGE.parent).with_suffix("") for p in sorted(PACKAGE.rglob("*.py"))]
    plain = [path for path in paths if not any(word in path.name for word in NEEDS_JAX)]
    return [".".join(path.parts).removesuffix(".__init__") for path in plain]


def _has_example(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else Path(f"{path}.py")
    lines = file.read_text(encoding="utf-8").splitlines()
    return any(">>> " in line and "+SKIP" not in line for line in lines)


@pytest.mark.parametrize("name", [name for name in _modules() if _has_example(name)])
def test_the_examples_in_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0
