"""The package as text: its modules, their syntax trees, and who imports whom. Nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "koinon"


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str  # koinon.round.driver
    path: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The first part below ``koinon``; the face itself for ``koinon``."""
        return self.name.split(".")[1] if "." in self.name else "koinon"

    def __str__(self) -> str:
        return str(self.path.relative_to(PACKAGE))


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the package, by name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(name, path, text, ast.parse(text)))
    return tuple(found)


def for_every(of: Iterable[Module]) -> Callable[[Callable[[Module], None]], Callable[[], None]]:
    """Make the check of one module a test of all of them: one test that names every offender, not one a file."""

    def all_of(check: Callable[[Module], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = []
            for module in of:
                try:
                    check(module)
                except AssertionError as error:
                    wrong.append(f"{module}: {error}")
            assert not wrong, "\n".join(wrong)

        test.__doc__ = check.__doc__
        return test

    return all_of


def imports(module: Module, *, top_level: bool = False) -> Iterator[tuple[int, str]]:
    """Yield ``(line, module imported)`` wherever the import stands, also under TYPE_CHECKING.

    With ``top_level``, imports inside functions are left out.
    """
    known = {other.name for other in modules()}
    for node in _outside_functions(module.tree) if top_level else ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in known else base


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method, nested ones too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def classes(module: Module) -> Iterator[ast.ClassDef]:
    """Yield every class."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            yield node


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)
