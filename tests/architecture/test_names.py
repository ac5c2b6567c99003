"""Names that say something, docstrings on all that is public, no hidden state, no place of one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from source import ROOT, Module, for_every, modules

SAYS_NOTHING = {"utils", "util", "common", "misc", "helpers", "helper", "manager", "base", "impl"}
MUTABLE_CALLS = {"dict", "list", "set", "defaultdict", "Counter", "deque", "OrderedDict", "default_rng", "Random"}
MACHINE = re.compile(r"(?<![\w.])/(?:work|tmp|home|root|mnt)/\w")
"""An absolute place of one machine. (Tests make their own folders; a place in a text is somebody's.)"""


@for_every(modules())
def test_no_file_is_called_after_nothing(module: Module) -> None:
    words = set(module.name.replace(".", "_").lower().split("_"))
    assert not words & SAYS_NOTHING


@for_every(modules())
def test_no_class_is_called_after_nothing(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            words = {word.lower() for word in re.findall(r"[A-Z][a-z]+", node.name)}
            assert not words & SAYS_NOTHING, f"{module}:{node.lineno} {node.name}"


@for_every(modules())
def test_everything_public_has_a_docstring(module: Module) -> None:
    assert ast.get_docstring(module.tree), f"{module} does not say what it is"
    for where, node in _public(module.tree, str(module)):
        assert ast.get_docstring(node), f"{where}:{node.lineno} {node.name} does not say what it is"


@for_every(modules())
def test_no_module_keeps_state(module: Module) -> None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            names = node.targets if isinstance(node, ast.Assign) else [node.target]
            constant = all(isinstance(name, ast.Name) and name.id.strip("_").isupper() for name in names)
            call = node.value.func if isinstance(node.value, ast.Call) else None
            called = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
            assert called not in MUTABLE_CALLS, f"{module}:{node.lineno} keeps state"
            if isinstance(node.value, ast.Dict | ast.List | ast.Set) and not constant:
                dunder = all(isinstance(name, ast.Name) and name.id.startswith("__") for name in names)
                assert dunder, f"{module}:{node.lineno} is a table that is not named as a constant"
    for node in ast.walk(module.tree):
        assert not isinstance(node, ast.Global), f"{module}:{node.lineno} changes a global"


@for_every(modules())
def test_a_constant_table_is_never_written_to(module: Module) -> None:
    constants = {
        name.id
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name) and name.id.strip("_").isupper()
    }
    changing = {"append", "extend", "insert", "pop", "update", "add", "remove", "clear", "setdefault", "discard"}
    for node in ast.walk(module.tree):
        target: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in changing:
            target = node.func.value
        assert not (isinstance(target, ast.Name) and target.id in constants), f"{module}:{node.lineno}"


def test_the_faces_table_is_what_its_types_say() -> None:
    face = next(module for module in modules() if module.name == "koinon")
    typed = {
        (node.module, alias.name)
        for node in ast.walk(face.tree)
        if isinstance(node, ast.ImportFrom) and node.module not in {"importlib", "typing"}
        for alias in node.names
    }
    import koinon

    assert typed == {(home, name) for name, home in koinon._HOME.items()}
    for name in koinon._HOME:
        if not name.startswith("_"):
            assert getattr(koinon, name).__doc__, f"koinon.{name} does not say what it is"


def test_nothing_names_a_place_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.is_file() or path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            assert not MACHINE.search(line), f"{name}:{number} names a place of one machine: {line.strip()[:80]}"


def _public(node: ast.AST, where: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield where, child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, where)
