"""What clients, coordinator and key holder of a deployed encrypted sum know before its first message: nobody is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from koinon import tree
from koinon.channel.encrypted import encrypted_of
from koinon.core.algorithm import Algorithm
from koinon.core.types import Purpose
from koinon.errors import ConfigurationError, ProtocolError
from koinon.fleet.wire.link import JoinLink
from koinon.privacy.encrypted_sum.keys import PublicKey
from koinon.privacy.encrypted_sum.pads import Round, SealedPad
from koinon.tree import Tree

CIPHERTEXTS, PAD = "ciphertexts", "pad"
"""What an encrypted update's two parts are called in its file: bytes, both."""
PAD_BYTES = len(SealedPad("ed25519:" + 43 * "A", bytes(80), bytes(64)).to_bytes())
"""For one key holder, of a client whose name is its Ed25519 key; an update has a pad for each, one after the other."""
ATTEMPTS = 256
"""How often a round may be asked for under another number, where the key holder could not decrypt one."""
KEY, TERMS, COUNT, SUM = "/v1/key", "/v1/terms", "/v1/count", "/v1/sum"
"""What a key holder is asked for: its public key, its list of clients; of several its share of how many are in a sum; a sum."""
_SLACK = 1 + 2.0**-10  # the float32 norm of a clipped update may exceed its bound by rounding
_PATH = "keyholder"


@dataclass(frozen=True)
class HolderLink:
    """``https://HOST:PORT/keyholder#ca=FINGERPRINT&token=TOKEN``: where a key holder is, and what opens it to a coordinator."""

    url: str
    token: str
    authority: str  # SHA-256 of the key holder's own CA

    @classmethod
    def parse(cls, text: str) -> HolderLink:
        """Return the link of a text. Raises ConfigurationError."""
        try:
            found = JoinLink.parse(text)
        except ConfigurationError:
            found = None
        if found is None or found.authority is None or not found.url.startswith("https:"):
            raise ConfigurationError(
                "--keyholder is what koinon keyholder has printed for the coordinator, https://HOST:PORT/keyholder#ca=...&"
                "token=...; put it in quotes, because of its # and &."
            )
        return cls(found.url.removesuffix(f"/{_PATH}"), found.token, found.authority)

    def __str__(self) -> str:
        return f"{self.url}/{_PATH}#ca={self.authority}&token={self.token}"


def round_of(
    algorithm: Algorithm, run: str, round: int, purpose: Purpose, attempt: int, *, value: Tree, cohort: int,
    keys: Sequence[PublicKey],
) -> Round:  # fmt: skip
    """Return which sum an attempt at a stage is for; ``value`` is the model of the stage, ``cohort`` is the round's.

    Raises ProtocolError for other ``keys`` than the app's, for keys that decrypt sums of fewer clients than the app wants, and
    for an attempt that is none of this round's: two sums of one round are one client's update.
    """
    step, bound = encrypted_of(algorithm), algorithm.wires()[-1][1].l2_bound
    assert step is not None and bound is not None, "the step's own check refuses what is unbounded"
    fingerprints = tuple(key.fingerprint for key in keys)
    if (found := tuple(key.hex() for key in fingerprints)) != step.keys:
        raise ProtocolError(
            f"The key holder's key has the fingerprint {', '.join(found)}, and the app is for {', '.join(step.keys)}. Ask the key "
            "holder, not the coordinator, which is right."
        )
    if (floor := min(key.floor for key in keys)) < step.least:
        raise ProtocolError(
            f"The app adds up at least {step.least} clients, and a key holder decrypts sums of {floor}: no client can hold the "
            f"coordinator to more. Ask for a key of koinon keyholder --floor {step.least}, or lower the app's least."
        )
    if not 0 <= attempt < ATTEMPTS:
        raise ProtocolError(
            f"Round {round} has attempts from 0, and could not be decrypted in {ATTEMPTS}; found attempt {attempt}. Ask the key "
            "holder why, and begin a new run."
        )
    train = purpose is Purpose.TRAIN
    parameters = step.parameters(
        values=max(1, tree.size(value)) if train else 1,
        cohort=math.ceil(max(cohort, needed(step.least, keys)) * algorithm.schedule.over_selection),
        bound=float(bound if train else 1.0) * _SLACK,
        uniform=not train or bool(algorithm.private),
    )
    number = round * ATTEMPTS + attempt
    model = bytes.fromhex(tree.digest(value))
    return Round(run=f"{run} {purpose.value}", number=number, parameters=parameters, keys=fingerprints, model=model)


def needed(least: int, keys: Sequence[PublicKey]) -> int:
    """Return the fewest clients of whom there is a sum: the app's word, or a key holder's if that is more."""
    return max(least, *(key.floor for key in keys))
