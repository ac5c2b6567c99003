"""What a Keras model needs to be rebuilt in another process, and what to say when it cannot be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from koinon import tree
from koinon.errors import ModelError
from koinon.tree import Tree


def own_objects(model: Any) -> dict[str, Any]:
    """Return the classes and functions that Keras could not find by itself in another process, by name."""
    found: dict[str, Any] = {}
    layers: Sequence[Any] = list(model._flatten_layers())
    candidates = [type(layer) for layer in layers]
    for layer in layers:
        candidates += [value for value in vars(layer).values() if callable(value) and hasattr(value, "__module__")]
    compiled = getattr(model, "_compile_metrics", None)
    given = [model.loss, getattr(compiled, "_user_metrics", None)]
    for item in flat([list(part.values()) if isinstance(part, Mapping) else part for part in given]):
        candidates.append(item if callable(item) and hasattr(item, "__name__") else type(item))
    for item in candidates:
        home = getattr(item, "__module__", None) or ""
        if home.partition(".")[0] not in ("keras", "builtins", "jax", "tensorflow", "numpy") and hasattr(
            item, "__name__"
        ):
            package = getattr(item, "_keras_api_registered_name", None)
            found[item.__name__] = item
            if package:
                found[str(package)] = item
    return found


def cannot_travel(model: Any, error: Exception) -> ModelError:
    """Say which layer cannot be rebuilt elsewhere, and what makes it so."""
    own = sorted(
        {type(layer).__name__ for layer in model._flatten_layers() if not type(layer).__module__.startswith("keras")}
    )
    named = f" Its own layers are {', '.join(own)}." if own else ""
    return ModelError(
        f"The Keras model {model.name!r} cannot be rebuilt from its configuration in a worker process: "
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}.{named} "
        "Give every layer of your own a get_config() that returns its constructor's arguments, and write it with "
        "keras.ops so that it runs on JAX."
    )


def other_inputs(model: Any, inputs: Tree) -> ModelError | None:
    """Say that a model could not be called on examples because it takes others; None where that is not it.

    ``inputs`` has (shape, dtype) of an example of each part.
    """
    takes = [tuple(part.shape[1:]) for part in getattr(model, "inputs", None) or ()]
    given = [tuple(shape) for shape, _ in tree.leaves(inputs)]
    if len(takes) != 1 or len(given) != 1:
        return None
    alike = len(takes[0]) == len(given[0]) and all(
        own in (None, size) for own, size in zip(takes[0], given[0], strict=True)
    )
    if alike:
        return None
    return ModelError(
        f"The Keras model {model.name!r} takes examples of shape {list(takes[0])}, and those it is given here have shape "
        f"{list(given[0])}. Change the model's input or the data."
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's generator, from which Keras draws every seed it is not given, and put it back afterwards."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def flat(items: Any) -> Iterator[Any]:
    """Yield the items of nested lists; nothing for None."""
    if items is None:
        return
    if isinstance(items, list | tuple):
        for item in items:
            yield from flat(item)
    else:
        yield items
