"""Logistic regression in JAX: the smallest useful model."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from koinon.metrics import Accuracy, AreaUnderCurve, Metric
from koinon.models.jax_functions import FunctionModel


def logistic_regression(inputs: int, metrics: tuple[Metric, ...] = (Accuracy(), AreaUnderCurve())) -> FunctionModel:
    """Return a model of one logit from ``inputs`` numbers, for labels 0 and 1.

    The weights begin uniform in ``+-1 / sqrt(inputs)``, the bias too.
    """
    return FunctionModel(partial(_init, inputs), _loss, _predict, metrics)


def _init(inputs: int, key: Any) -> dict[str, Any]:
    bound = inputs**-0.5
    drawn = jax.random.uniform(key, (inputs + 1,), minval=-bound, maxval=bound)
    return {"weight": drawn[:inputs], "bias": drawn[inputs]}


def _predict(params: dict[str, Any], x: Any) -> Any:
    return x @ params["weight"] + params["bias"]


def _loss(params: dict[str, Any], x: Any, y: Any) -> Any:
    logit = _predict(params, x)
    return jnp.logaddexp(0.0, logit) - y * logit
