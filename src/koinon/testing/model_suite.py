"""What every model must hold to."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from koinon import keys, tree
from koinon.core.protocols import Model
from koinon.core.types import Batch, Variables
from koinon.data.dataset import FederatedDataset
from koinon.metrics import EXAMPLES, LOSS
from koinon.testing.comparison import copied, near, same
from koinon.testing.samples import batch
from koinon.tree import Array

_ROWS, _COUNTED = 12, 4
_STEP = 1e-2


def check_model(model: Model, data: FederatedDataset, *, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless ``model`` can be trained on ``data`` as a round needs it.

    First variables come from the key alone and are float32; gradients have the shape of the parameters; metrics
    are sums that add over any split and count only what the mask counts. A model without state whose gradient
    ignores the key is held to the slope of its own loss.
    """
    model.check(data)
    variables = tree.to_numpy(model.init(keys.root(1)))
    assert set(variables) == {"params", "state"}, f"init must return params and state; found {sorted(variables)}"
    same(model.init(keys.root(1)), variables, "the first variables from one key")
    assert all(leaf.dtype == np.float32 for leaf in tree.leaves(variables)), "first variables must be float32"
    json.dumps(model.describe())
    whole = batch(data, data.order()[:_ROWS])
    _check_gradient(model, variables, whole)
    _check_evaluation(model, variables, data, whole, tolerance)
    if not tree.leaves(variables["state"]) and _ignores_the_key(model, variables, whole):
        _check_slope(model, variables, whole)


def _check_gradient(model: Model, variables: Variables, whole: Batch) -> None:
    given = copied(variables)
    gradients, state, sums = model.grad(variables, whole)
    same(variables, given, "the variables after a gradient")
    same(tree.zeros(tree.to_numpy(gradients)), tree.zeros(given["params"]), "the shape of the gradients")
    same(tree.zeros(tree.to_numpy(state)), tree.zeros(given["state"]), "the shape of the state after a step")
    assert all(np.isfinite(leaf).all() for leaf in tree.leaves(gradients)), "gradients must be finite at the start"
    assert {EXAMPLES, LOSS} <= set(sums), f"metric sums must hold {EXAMPLES} and {LOSS}; found {sorted(sums)}"
    half = Batch(whole.x, whole.y, (np.arange(_ROWS) < _COUNTED).astype(np.float32), whole.key)
    counted = float(model.grad(variables, half)[2][EXAMPLES])
    assert counted == _COUNTED, f"{_COUNTED} of {_ROWS} rows count, and grad counted {counted:g}"


def _check_evaluation(
    model: Model, variables: Variables, data: FederatedDataset, whole: Batch, tolerance: float
) -> None:
    rows = data.order()
    sums = _sums(model, variables, whole)
    parts = [_sums(model, variables, batch(data, rows[i : i + _COUNTED])) for i in range(0, _ROWS, _COUNTED)]
    added = {name: sum(part[name] for part in parts) for name in sums}
    near(added, sums, tolerance, "metric sums over a split")
    masked = _sums(model, variables, batch(data, rows[:_ROWS], counted=_COUNTED))
    near(masked, parts[0], tolerance, "metric sums of the rows that count")
    for name, figure in model.finish(sums).items():
        assert isinstance(figure, float), f"finish must return floats; {name} is {type(figure).__name__}"


def _sums(model: Model, variables: Variables, part: Batch) -> dict[str, Any]:
    return {name: np.asarray(value, np.float64) for name, value in model.evaluate(variables, part).items()}


def _ignores_the_key(model: Model, variables: Variables, whole: Batch) -> bool:
    other = Batch(whole.x, whole.y, whole.mask, np.array([7, 9], np.uint32))
    first, second = (tree.to_numpy(model.grad(variables, part)[0]) for part in (whole, other))
    return tree.digest(first) == tree.digest(second)


def _check_slope(model: Model, variables: Variables, whole: Batch) -> None:
    """Along every leaf's own gradient the mean loss must rise as steeply as the gradient is long."""
    gradients = dict(tree.items(tree.to_numpy(model.grad(variables, whole)[0])))
    length = {name: float(np.sqrt(np.sum(leaf * leaf))) for name, leaf in gradients.items()}
    for name, leaf in gradients.items():
        along = leaf if length[name] else np.asarray(np.random.default_rng(0).normal(size=leaf.shape))
        unit = np.asarray(along / np.sqrt(np.sum(along * along)), np.float32)
        slope = _slope(model, variables, whole, name, unit)
        slack = 0.05 * length[name] + 0.01 * max(length.values()) + 1e-5
        assert abs(slope - length[name]) <= slack, (
            f"along the gradient of {name} the loss rises by {slope:.6g} a unit and grad says {length[name]:.6g}: "
            "grad must be that of the masked mean of the loss that evaluate sums"
        )


def _slope(model: Model, variables: Variables, whole: Batch, name: str, unit: Array) -> float:
    """Return the slope of the mean loss along ``unit`` in one leaf of the parameters."""
    names = tree.names(variables["params"])

    def loss(step: float) -> float:
        moved = (
            leaf + np.float32(step) * unit if own == name else leaf
            for own, leaf in zip(names, tree.leaves(variables["params"]), strict=True)
        )
        params = tree.fill(tree.structure(variables["params"]), moved)
        sums = model.evaluate({**variables, "params": params}, whole)
        return float(sums[LOSS]) / float(sums[EXAMPLES])

    return (loss(_STEP) - loss(-_STEP)) / (2 * _STEP)
