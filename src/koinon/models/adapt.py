"""Any model a user brings, as a Model. No framework is imported to find out whose it is."""

from __future__ import annotations

from typing import Any

from koinon.core.protocols import Dataset, Model
from koinon.errors import ModelError, UnsupportedError
from koinon.models.own_loop import OwnLoop, OwnLoopModel


def adapt(model: Any, data: Dataset) -> Model:
    """Return ``model`` as a Model for examples like those of ``data``. Raises ModelError for what it does not know."""
    if isinstance(model, OwnLoop):
        return OwnLoopModel(model)
    if isinstance(model, Model):
        return model
    homes = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "keras" in homes:
        from koinon.models.keras_on_jax import KerasModel

        return KerasModel.of(model, data)
    foreign = homes & {"tf_keras", "torch", "sklearn"}
    if foreign:
        raise UnsupportedError(
            f"{type(model).__name__} is a model of {', '.join(sorted(foreign))}, which this koinon does not take directly. "
            "Use a Keras 3 model, a FunctionModel, or bring its training loop: kn.OwnLoop."
        )
    raise ModelError(
        f"A model was asked for; found {type(model).__name__}. Give a compiled Keras 3 model, "
        "kn.FunctionModel(init, loss), or kn.OwnLoop(params=..., train=...)."
    )
