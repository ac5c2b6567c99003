"""The norm of every example's gradient, without the gradient of a dense layer.

For a layer ``h @ W`` of one row ``h`` the gradient of ``W`` is the outer product of ``h`` and of the gradient at the layer's
output, and its norm is the product of theirs: a thousand numbers in place of a hundred thousand. Such layers are found
in the traced loss; every other parameter's gradient is computed. Goodfellow, "Efficient Per-Example Gradient
Computations", 2015, arXiv 1510.01799.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from koinon.tree import Array, Tree


def losses_and_squares(one: Callable[..., Array], params: Tree, examples: tuple[Tree, ...]) -> tuple[Array, Array]:
    """Return every example's loss and the squared L2 norm of its gradient, both ``[examples]``.

    ``one(params, *example)`` is the loss of one example; ``examples`` are stacked.
    """
    leaves, structure = jax.tree.flatten(params)
    flat_examples, example_structure = jax.tree.flatten(examples)

    def flat(leaves: Sequence[Array], *example: Array) -> Array:
        return one(jax.tree.unflatten(structure, leaves), *jax.tree.unflatten(example_structure, example))

    traced = jax.make_jaxpr(flat)(leaves, *(leaf[0] for leaf in flat_examples))
    dense = _dense_layers(traced.jaxpr, len(leaves))
    rest = [i for i in range(len(leaves)) if i not in dense.values()]

    def of_one(*example: Array) -> tuple[Array, Array]:
        def loss(some: Sequence[Array], probes: Sequence[Array]) -> tuple[Array, list[Array]]:
            own = list(leaves)
            for i, leaf in zip(rest, some, strict=True):
                own[i] = leaf
            return _evaluated(traced, [*own, *example], dict(zip(dense, probes, strict=True)))

        shapes = [traced.jaxpr.eqns[place].outvars[0].aval for place in dense]
        at = [leaves[i] for i in rest], [jnp.zeros(aval.shape, aval.dtype) for aval in shapes]
        (value, inputs), (own, deltas) = jax.value_and_grad(loss, (0, 1), has_aux=True)(*at)
        square = sum((jnp.sum(jnp.square(leaf)) for leaf in own), jnp.float32(0))
        for h, delta in zip(inputs, deltas, strict=True):
            square = square + jnp.sum(jnp.square(h)) * jnp.sum(jnp.square(delta))
        return value, square

    losses, squares = jax.vmap(of_one)(*flat_examples)
    return losses, squares


def _dense_layers(jaxpr: Any, count: int) -> dict[int, int]:
    """Return the places of products of one row with a parameter that is used nowhere else, and which one it is."""
    used = Counter(v for eqn in jaxpr.eqns for v in eqn.invars if not isinstance(v, Literal))
    used.update(v for v in jaxpr.outvars if not isinstance(v, Literal))
    which = {variable: i for i, variable in enumerate(jaxpr.invars[:count])}
    found = {}
    for place, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name != "dot_general" or eqn.invars[1] not in which or used[eqn.invars[1]] > 1:
            continue
        row, kernel = (v.aval for v in eqn.invars)
        plain = eqn.params["dimension_numbers"] == (((row.ndim - 1,), (0,)), ((), ()))
        if plain and kernel.ndim == 2 and row.size == kernel.shape[0]:
            found[place] = which[eqn.invars[1]]
    return found


def _evaluated(traced: Any, arguments: Sequence[Array], probes: dict[int, Array]) -> tuple[Array, list[Array]]:
    """Return the loss with a probe added to the output of each dense layer, and these layers' inputs."""
    values = dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
    values.update(zip(traced.jaxpr.invars, arguments, strict=True))
    inputs = []

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for place, eqn in enumerate(traced.jaxpr.eqns):
        bound = eqn.primitive.get_bind_params(eqn.params)
        functions, parameters = bound if isinstance(bound, tuple) else ((), bound)  # as JAX's version has it
        found = eqn.primitive.bind(*functions, *map(read, eqn.invars), **parameters)
        out = found if eqn.primitive.multiple_results else [found]
        if place in probes:
            inputs.append(read(eqn.invars[0]))
            out = [out[0] + probes[place]]
        values.update(zip(eqn.outvars, out, strict=True))
    return read(traced.jaxpr.outvars[0]), inputs
