"""Per-example gradients of any JAX loss: clipped one by one, added up, without holding them all."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from koinon import keys, tree
from koinon.core.types import Batch, Metrics
from koinon.metrics import EXAMPLES, LOSS
from koinon.models.example_norms_jax import losses_and_squares
from koinon.tree import Array, Tree
from koinon.work.private import DROPPED

ExampleLoss = Callable[[Tree, Batch], Array]
"""The loss, a scalar, of a batch of one example at some parameters."""

_SLACK = np.float32(1 - 1e-5)
"""Float32's rounding of a clipped gradient stays below the norm."""


def clipped_gradient(loss: ExampleLoss, params: Tree, batch: Batch, norm: Array) -> tuple[Tree, Metrics]:
    """Return the sum of the gradients of ``batch``'s examples, each scaled to ``norm`` at most, and metric sums.

    The norms come first, and of each gradient nothing else is kept; then one gradient of the weighted sum of losses. An
    example sees no other: each is a batch of its own. One whose loss or gradient is not finite is left out.
    """
    batch = Batch(*jax.tree.map(jnp.asarray, (batch.x, batch.y, batch.mask, batch.key)))
    count = len(batch.mask)
    own_keys = keys.fold(jnp.broadcast_to(batch.key, (count, 2)), jnp.arange(count, dtype=jnp.uint32))

    def one(params: Tree, x: Tree, y: Tree, key: Array) -> Array:
        x, y = jax.tree.map(lambda leaf: leaf[None], (x, y))
        return loss(params, Batch(x, y, jnp.ones(1, jnp.float32), key))

    over = (None, 0, 0, 0)
    losses, square = losses_and_squares(one, params, (batch.x, batch.y, own_keys))
    counted = batch.mask > 0
    good = counted & jnp.isfinite(square) & jnp.isfinite(losses)
    factors = jnp.minimum(1.0, norm / jnp.sqrt(jnp.maximum(square, 1e-30))) * _SLACK
    weights = jnp.where(good, factors, 0.0)
    # Nothing times NaN is NaN: a good example, of weight 0, takes the place of every other.
    chosen = jnp.where(good, jnp.arange(count), jnp.argmax(good))
    x, y, own_keys = jax.tree.map(lambda leaf: leaf[chosen], (batch.x, batch.y, own_keys))
    total = jax.grad(lambda params: jnp.sum(weights * jax.vmap(one, over)(params, x, y, own_keys)))(params)
    total = tree.map(lambda leaf: jnp.where(jnp.any(good), leaf, 0.0), total)
    used = jnp.sum(good.astype(jnp.float32))
    loss_sum = jnp.sum(jnp.where(good, losses, 0.0))
    return total, {EXAMPLES: used, LOSS: loss_sum, DROPPED: jnp.sum(batch.mask) - used}
