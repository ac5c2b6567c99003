"""A room imports only lower floors, no module imports in a circle, and a framework is where its name is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from source import Module, for_every, imports, modules

FLOORS = {
    "errors": 0,
    "tree": 0,
    "keys": 0,
    "exact": 0,
    "metrics": 0,
    "core": 1,
    "privacy": 2,
    "work": 3,
    "channel": 3,
    "aggregate": 3,
    "server": 3,
    "sample": 3,
    "round": 4,
    "algorithms": 5,
    "data": 5,
    "models": 5,
    "store": 5,
    "report": 5,
    "engines": 6,
    "identity": 6,
    "run": 6,
    "runtimes": 7,
    "fleet": 7,
    "app": 8,
    "testing": 9,
    "audit": 9,  # trains the job itself, as the commands do
    "cli": 10,
    "koinon": 11,  # the face: names only
}
SIDES = {
    "wire": set(),
    "participant": {"wire"},
    "coordinator": {"wire"},
    "service": {"wire", "coordinator"},
    "keyholder": {"wire", "service"},  # of the service what serves, and nothing of the coordinator: tested below
}
"""What each room of the fleet may know of the others: the two sides share nothing but the wire."""
SAME_FLOOR = {
    # The foundation is one floor of single files: keys, sums and metrics are written on trees.
    ("keys", "tree"),
    ("exact", "tree"),
    ("metrics", "tree"),
}
FRAMEWORKS = {
    "jax": "jax",
    "jaxlib": "jax",
    "keras": "keras",
    "torch": "torch",
    "tensorflow": "tensorflow",
    "pyspark": "spark",
    "ray": "ray",
    "uvicorn": "uvicorn",
    "uvloop": "uvicorn",
    "pandas": "pandas",
    "tensorboardX": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
}
"""A framework, and the word that a file's name must hold to import it."""


def test_every_room_has_a_floor() -> None:
    assert {module.room for module in modules()} <= FLOORS.keys()


@for_every(modules())
def test_a_room_imports_only_lower_floors(module: Module) -> None:
    for line, name in imports(module):
        if name.partition(".")[0] != "koinon":
            continue
        room = name.split(".")[1] if "." in name else "koinon"
        allowed = room == module.room or (module.room, room) in SAME_FLOOR or FLOORS[room] < FLOORS[module.room]
        assert allowed, f"{module}:{line}: {module.room} (floor {FLOORS[module.room]}) imports {room} ({FLOORS[room]})"


@for_every([m for m in modules() if m.name.startswith("koinon.fleet.")])
def test_the_two_sides_of_the_fleet_share_nothing_but_the_wire(module: Module) -> None:
    side = module.name.split(".")[2]
    for line, name in imports(module):
        if name.startswith("koinon.fleet."):
            other = name.split(".")[2]
            assert other == side or other in SIDES[side], f"{module}:{line}: {side} imports {name}"


def test_a_key_holder_has_nothing_of_a_coordinator() -> None:
    code = (
        "import sys, koinon.fleet.keyholder.serving; "
        "print([m for m in sys.modules if m == 'sqlalchemy' or m.startswith('koinon.fleet.coordinator')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"


def test_no_module_imports_in_a_circle_typing_included() -> None:
    graph = {
        module.name: {name for _, name in imports(module) if name in {m.name for m in modules()}}
        for module in modules()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle of imports: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in graph[name] - {name}:
                visit(other, (*path, name))
            done.add(name)

    for module in modules():
        visit(module.name, ())


@for_every(modules())
def test_a_framework_is_imported_only_in_files_named_after_it(module: Module) -> None:
    for line, name in imports(module):
        framework = name.partition(".")[0]
        if framework in FRAMEWORKS:
            words = module.path.stem.split("_")
            assert FRAMEWORKS[framework] in words, f"{module}:{line} imports {framework}"


@for_every([m for m in modules() if m.room == "core" or m.room in SAME_FLOOR])
def test_the_vocabulary_depends_on_numpy_alone(module: Module) -> None:
    for line, name in imports(module):
        package = name.partition(".")[0]
        assert package in {"koinon", "numpy"} | sys.stdlib_module_names, f"{module}:{line} imports {package}"


@pytest.mark.parametrize("start", ["import koinon", "from koinon.cli.main import main"])
def test_starting_koinon_imports_no_framework(start: str) -> None:
    heavy = {*FRAMEWORKS, "matplotlib", "sklearn", "scipy", "rich"}
    code = f"import sys; {start}; print(' '.join({{m.partition('.')[0] for m in sys.modules}} & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_taking_part_loads_no_server_and_no_database() -> None:
    heavy = {"sqlalchemy", "starlette", "uvicorn"}
    code = f"import sys, koinon.cli.fleet, koinon.cli.fleet_options; print(*({heavy!r} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
