"""An update as a file: the names its tensors go by."""

from __future__ import annotations

import numpy as np

from koinon import tree
from koinon.core.types import Payload
from koinon.store import tensors

UPDATE, METRICS = "update.", "metrics."
_SALT = "salt"
_BFLOAT16 = ".bfloat16"  # what the codec calls a leaf of such bits


def to_pieces(sent: Payload, salt: str) -> list[bytes | memoryview]:
    """Return the file of what a client sends.

    Receipts tell every party its digest; who does not know the ``salt`` cannot find out what was sent by trying.
    """
    arrays = {f"{UPDATE}{name}".rstrip("."): leaf for name, leaf in tree.items(sent.value)}
    arrays |= {f"{METRICS}{name}": np.asarray(value, np.float32) for name, value in sent.metrics.items()}
    bits = [name for name, x in arrays.items() if name.endswith(_BFLOAT16) and x.dtype == np.uint16]  # a layer's name?
    return list(tensors.pieces(arrays, {_SALT: salt}, bits))
