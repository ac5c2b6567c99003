"""What every fault needs: the app's file, and what an undisturbed run of it ends in."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fleet.processes import simulated

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def app() -> Path:
    """Return the app's file."""
    return HERE / "app.py"


@pytest.fixture(scope="session")
def undisturbed(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return the digest that ``koinon run`` gives for the app with these changes and this environment."""

    @cache
    def digest(*changes: str, **environment: str) -> str:
        return simulated(app, tmp_path_factory.mktemp("simulation"), changes, environment)

    return digest
