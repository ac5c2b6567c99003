"""Rebuild a client's examples from the gradient it sends: what a curious server learns from one step.

The server knows the model, the labels and how many examples there are, and looks for inputs whose gradient points the same
way: 1 minus the cosine, by Adam, with the total variation of images as a prior. Zhu, Liu and Han, "Deep Leakage from
Gradients", NeurIPS 2019; Geiping et al., "Inverting Gradients", NeurIPS 2020.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import koinon as kn
from koinon import tree
from koinon.core.types import Batch
from koinon.work.private import PrivateTraining

HIDDEN = 64
NORM = 1.0
SENT: dict[str, tuple[float | None, float]] = {
    "the gradient": (None, 0.0),
    "clipped": (NORM, 0.0),
    "clipped, noise 0.01": (NORM, 0.01),
    "clipped, noise 0.1": (NORM, 0.1),
    "clipped, noise 1": (NORM, 1.0),
}
"""What a client sends: the clipping norm of one example, the noise multiplier."""


def inversions(
    name: str, x: np.ndarray, y: np.ndarray, classes: int, *, side: int | None, short: bool
) -> list[dict[str, Any]]:
    """Return how well examples in [0, 1] are rebuilt: a row for every batch size and thing sent."""
    model, rows = _network(x.shape[1], classes), []
    variables = tree.map(jnp.asarray, model.init(np.array([3, 5], np.uint32)))
    steps, tries = (300, 2) if short else (2000, 5)
    mean = x.mean(axis=0)
    for batch in (1,) if short else (1, 4):
        invert = jax.jit(
            lambda sent, labels, key: _inverted(model, variables, sent, labels, key, x.shape[1], side, steps)
        )
        for what, (norm, multiplier) in SENT.items():
            if short and what not in ("the gradient", "clipped, noise 1"):
                continue
            psnr, blind = [], []
            for i in range(tries):
                chosen = np.random.default_rng(i).permutation(len(y))[:batch]
                sent = _sent(model, variables, x[chosen], y[chosen], norm, multiplier)
                guess = np.asarray(invert(sent, y[chosen], jax.random.key(i)))
                psnr.append(_psnr(guess, x[chosen]))
                blind.append(_psnr(np.broadcast_to(mean, guess.shape), x[chosen]))
            rows.append({"data": name, "batch": batch, "sent": what, "tries": tries, "psnr": float(np.mean(psnr)),
                         "psnr_worst": float(np.max(psnr)), "psnr_blind": float(np.mean(blind))})  # fmt: skip
    return rows


def _network(inputs: int, classes: int) -> kn.FunctionModel:
    def init(key: Any) -> Any:
        first, second = jax.random.split(key)
        return {
            "hidden": {"weight": jax.random.normal(first, (inputs, HIDDEN)) * inputs**-0.5, "bias": jnp.zeros(HIDDEN)},
            "last": {"weight": jax.random.normal(second, (HIDDEN, classes)) * HIDDEN**-0.5, "bias": jnp.zeros(classes)},
        }

    def loss(params: Any, x: Any, y: Any) -> Any:
        inner = jax.nn.sigmoid(x @ params["hidden"]["weight"] + params["hidden"]["bias"])
        chances = jax.nn.log_softmax(inner @ params["last"]["weight"] + params["last"]["bias"])
        return -jnp.take_along_axis(chances, y[:, None], axis=1)[:, 0]

    return kn.FunctionModel(init, loss)


def _sent(
    model: kn.FunctionModel, variables: Any, x: np.ndarray, y: np.ndarray, norm: float | None, multiplier: float
) -> Any:
    """Return the gradient as plain SGD or the client work of DP-SGD makes it: one step of rate 1."""
    batch = Batch(jnp.asarray(x), jnp.asarray(y), jnp.ones(len(y)), jnp.zeros(2, jnp.uint32))
    if norm is None:
        return model.grad(variables, batch)[0]
    if not multiplier:
        return tree.scale(model.clipped_gradient(variables, batch, jnp.float32(norm))[0], 1 / len(y))
    work = PrivateTraining(
        norm=norm, multiplier=multiplier, batches=kn.ShuffledBatches(size=None), optimizer=kn.sgd(1.0)
    )
    task = kn.Task(jnp.zeros(2, jnp.uint32), jnp.float32(len(y)), jnp.float32(1))
    carry = work.begin(task, variables, tree.map(jnp.asarray, work.init(variables)))
    after, _ = work.step(model, carry, batch)
    return tree.subtract(variables["params"], after["params"])


def _inverted(
    model: kn.FunctionModel, variables: Any, sent: Any, labels: Any, key: Any, inputs: int, side: int | None, steps: int
) -> Any:
    """Return inputs in [0, 1] whose gradient points as ``sent`` does."""
    batch = labels.shape[0]
    length = jnp.sqrt(tree.sum_of_squares(sent))

    def mismatch(free: Any) -> Any:
        x = jax.nn.sigmoid(free)
        own = model.grad(variables, Batch(x, labels, jnp.ones(batch), jnp.zeros(2, jnp.uint32)))[0]
        product = sum(jnp.vdot(a, b) for a, b in zip(tree.leaves(own), tree.leaves(sent), strict=True))
        apart = 1 - product / (length * jnp.sqrt(tree.sum_of_squares(own) + 1e-20))
        if side is None:
            return apart
        image = x.reshape(batch, side, side)
        return apart + 1e-3 * (jnp.abs(jnp.diff(image, axis=1)).mean() + jnp.abs(jnp.diff(image, axis=2)).mean())

    optimizer = kn.adam(0.1)

    start = {"x": 0.1 * jax.random.normal(key, (batch, inputs))}
    state = tree.map(jnp.asarray, optimizer.init(start))

    def named(i: Any, now: Any) -> Any:
        free, inner = now
        gradients = {"x": jax.grad(mismatch)(free["x"])}
        return optimizer.apply(free, gradients, inner, jnp.where(i < 2 * steps // 3, 1.0, 0.1))

    free, _ = jax.lax.fori_loop(0, steps, named, (start, state))
    return jax.nn.sigmoid(free["x"])


def _psnr(guess: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean peak signal-to-noise ratio in decibels, each true example against the guess that is nearest."""
    errors = ((truth[:, None] - guess[None]) ** 2).mean(axis=2).min(axis=1)
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))
