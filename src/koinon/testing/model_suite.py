"""What every model must hold to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from koinon import keys, tree
from koinon.core.protocols import Model
from koinon.core.types import Batch, Metrics, Variables
from koinon.data.dataset import FederatedDataset
from koinon.metrics import EXAMPLES, LOSS
from koinon.testing.comparison import copied, near, same
from koinon.testing.samples import batch
from koinon.tree import Array, Tree
from koinon.work.private import DROPPED, ExampleGradients

_ROWS, _COUNTED = 12, 4
_STEP = 1e-2


def check_model(model: Model, data: FederatedDataset, *, tolerance: float = 1e-4) -> None:
    """Raise AssertionError unless ``model`` can be trained on ``data`` as a round needs it.

    First variables come from the key alone and are float32; gradients have the shape of the parameters; metrics
    are sums that add over any split and count only what the mask counts. A model without state whose gradient
    ignores the key is held to the slope of its own loss, and with ``clipped_gradient`` to the norm of every single
    example, to the sum of them all, and to leaving out an example that is not finite.
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
        if isinstance(model, ExampleGradients):
            _check_examples(model, model, variables, whole)


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


def _check_examples(model: Model, examples: ExampleGradients, variables: Variables, whole: Batch) -> None:
    def of(rows: slice, norm: float, x: Tree = whole.x) -> tuple[Tree, Metrics]:
        part_x, part_y = (tree.map(lambda leaf: leaf[rows], side) for side in (x, whole.y))
        part = Batch(part_x, part_y, whole.mask[rows], whole.key)
        total, sums = examples.clipped_gradient(variables, part, np.float32(norm))
        return tree.to_numpy(total), {name: np.asarray(value, np.float64) for name, value in sums.items()}

    everything, long = slice(None), 1e6
    mean = tree.scale(of(everything, long)[0], np.float32(1 / _ROWS))
    near(mean, tree.to_numpy(model.grad(variables, whole)[0]), 1e-3, "the mean of gradients that nothing clips")
    norm = float(tree.sum_of_squares(mean)) ** 0.5 / 10
    singles = [of(slice(i, i + 1), norm)[0] for i in range(_ROWS)]
    for single in singles:
        assert float(tree.sum_of_squares(single)) ** 0.5 <= norm, (
            "the gradient of one example exceeds the clipping norm"
        )
    total, sums = of(everything, norm)
    near(tree.map(lambda *x: sum(x), *singles), total, 1e-3, "the sum of clipped gradients, one by one")
    assert float(sums[EXAMPLES]) == _ROWS and not float(sums[DROPPED]), f"all examples are good; found {sums}"
    _check_bad_examples(of, singles, norm, whole.x)


def _check_bad_examples(
    of: Callable[[slice, float, Tree], tuple[Tree, Metrics]], singles: Sequence[Tree], norm: float, x: Tree
) -> None:
    """An example that is not finite adds nothing and is counted; all others add what they did."""
    if not all(np.asarray(leaf).dtype.kind == "f" for leaf in tree.leaves(x)):
        return
    rest = tree.map(lambda *each: sum(each), *singles[1:])
    for value in (np.nan, np.inf, 1e30):

        def spoilt(leaf: Array, value: float = value) -> Array:
            out = np.array(leaf)
            out[0] = value
            return out

        with np.errstate(all="ignore"):
            total, sums = of(slice(None), norm, tree.map(spoilt, x))
        assert all(np.isfinite(leaf).all() for leaf in tree.leaves(total)), f"an example of {value} spoils the sum"
        length = float(tree.sum_of_squares(tree.subtract(total, rest))) ** 0.5
        assert length <= norm * 1.001, f"an example of {value} moves the sum by {length:.6g}; the norm is {norm:.6g}"
        if not np.isfinite(value):
            assert float(sums[DROPPED]) == 1, (
                f"one example of {value} is to be counted as dropped; found {sums[DROPPED]}"
            )


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
