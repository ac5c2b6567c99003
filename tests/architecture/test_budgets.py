"""Budgets that keep the house small: lines of a function and a file, arguments of a constructor."""

from __future__ import annotations

import ast

from source import Module, classes, for_every, functions, modules

FUNCTION_LINES = 40
FILE_LINES = 400
ALGORITHM_LINES = 60
CORE_LINES = 700
CONSTRUCTOR_ARGUMENTS = 7


@for_every(modules())
def test_a_function_has_at_most_40_lines(module: Module) -> None:
    for function in functions(module):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= FUNCTION_LINES, f"{module}:{function.lineno} {function.name} has {lines} lines"


@for_every(modules())
def test_a_file_has_at_most_400_lines(module: Module) -> None:
    most = ALGORITHM_LINES if module.room == "algorithms" else FILE_LINES
    assert len(module.text.splitlines()) <= most


def test_the_vocabulary_stays_small() -> None:
    assert sum(len(module.text.splitlines()) for module in modules() if module.room == "core") <= CORE_LINES


@for_every(modules())
def test_a_constructor_takes_at_most_seven_arguments(module: Module) -> None:
    """A dataclass that only holds values is a record, not a constructor: it may have more fields."""
    for kind in classes(module):
        for node in kind.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                given = node.args
                count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1
                assert count <= CONSTRUCTOR_ARGUMENTS, f"{module}:{node.lineno} {kind.name} takes {count}"
                assert given.vararg is None, f"{module}:{node.lineno} {kind.name} takes any number of arguments"
                assert given.kwarg is None, f"{module}:{node.lineno} {kind.name} takes a bag of options"


@for_every(modules())
def test_a_record_is_frozen(module: Module) -> None:
    for kind in classes(module):
        for decorator in kind.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            name = call.func if call else decorator
            if isinstance(name, ast.Name) and name.id == "dataclass":
                frozen = call is not None and any(
                    word.arg == "frozen" and isinstance(word.value, ast.Constant) and word.value.value is True
                    for word in call.keywords
                )
                assert frozen, f"{module}:{kind.lineno} {kind.name} can be changed after it was made"
