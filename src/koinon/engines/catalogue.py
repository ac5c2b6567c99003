"""Engines by name, imported only when asked for: none of their frameworks is needed to read this file."""

from __future__ import annotations

from koinon.core.execution import Engine
from koinon.errors import ConfigurationError, UnsupportedError

ENGINES = ("jax", "reference")


def engine(name: str) -> Engine:
    """Return a new engine. Raises ConfigurationError for an unknown name, UnsupportedError without its framework."""
    if name == "reference":
        from koinon.engines.reference import ReferenceEngine

        return ReferenceEngine()
    if name != "jax":
        raise ConfigurationError(f"There is no engine {name!r}. The engines are {', '.join(ENGINES)}.")
    try:
        from koinon.engines.jax import JaxEngine
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            "The engine 'jax' needs JAX, which is not installed. Run: pip install 'koinon[jax]'"
        ) from error
    return JaxEngine()
