"""What an encrypted sum costs: one update encrypted and written as bytes, beside CKKS with the parameters of NVFlare.

Called by `privacy.py he`. What is compared takes turns in one process and the minimum of all turns counts, in CPU time. A whole
round follows: every client's ciphertexts are added up, decrypted and compared with the sum of the integers.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import tenseal

from koinon.privacy.encrypted_sum.ciphertexts import EncryptedSum
from koinon.privacy.encrypted_sum.ckks import SharedKeyCKKS
from koinon.privacy.encrypted_sum.client import Sent, encrypted
from koinon.privacy.encrypted_sum.holder import Answered, KeyHolder, Request
from koinon.privacy.encrypted_sum.keys import SecretKey
from koinon.privacy.encrypted_sum.pads import Pad, Round
from koinon.privacy.encrypted_sum.parameters import Parameters
from koinon.privacy.encrypted_sum.shares import together
from koinon.tree import Array

OURS, THEIRS = "koinon", "CKKS, symmetric"
FLOAT32_BYTES = 4
NVFLARE = {"poly_modulus_degree": 8192, "coeff_mod_bit_sizes": [60, 40, 40]}  # and every client has the secret key
NVFLARE_SCALE = 2.0**40


def measure(clients: int, parameters: int, turns: int) -> dict[str, Any]:
    """Return sizes and CPU seconds of one update and of the round, and whether the sum was exact."""
    random = np.random.default_rng(7)
    updates = [random.uniform(-1, 1, parameters).astype(np.float32) for _ in range(clients)]
    terms = Parameters.fitting(cohort=clients, bound=1.0, largest_weight=1, values=parameters, figures=2)
    secret = SecretKey.generate(floor=clients)
    round = Round(run="bench", number=0, parameters=terms, keys=(secret.public.fingerprint,))

    def client(index: int) -> Sent:
        return encrypted(
            round, [secret.public], f"client {index}", (updates[index], 1, (0.5, 2.0)), lambda _: bytes(64)
        )

    pad_bytes = len(client(0).pads[0].to_bytes())
    calls: dict[str, Callable[[], int]] = {OURS: lambda: len(client(0).update) + pad_bytes}
    calls |= {
        f"CKKS, {kind.name.lower()}": partial(_ckks, _context(kind), updates[0]) for kind in tenseal.ENCRYPTION_TYPE
    }
    best, sizes = _interleaved(calls, turns)
    plain = FLOAT32_BYTES * parameters
    return {
        "cpu_seconds_per_update": best,
        "cpu_ratio_to_nvflare": best[OURS] / best[THEIRS],
        "of_float32": {name: size / plain for name, size in sizes.items()},
        "round": _round(round, secret, [client(index) for index in range(clients)], updates),
        "bits_of_a_number": terms.field_bits,
        "scale": terms.scale,
        "numbers_in_a_coefficient": terms.fields,
        "dropped_bits": terms.dropped_bits,
        "margin_bits": terms.margin_bits,
        "load": os.getloadavg()[0],
    }


def _round(round: Round, secret: SecretKey, sent: list[Sent], updates: list[Array]) -> dict[str, Any]:
    total = EncryptedSum(round)
    began = time.process_time()
    for one in sent:
        total.add(one.update)
    added = time.process_time()
    blinded = total.blinded(os.urandom(32))
    hidden = time.process_time()
    request = Request(round, tuple(one.pads[0] for one in sent), blinded.total)
    holder = KeyHolder(secret=secret, verify=lambda *_: True)
    asked = time.process_time()
    share = holder.share(request, Answered(), lambda _: None)
    answered = time.process_time()
    totals = together(round, len(sent), blinded.share, [share])
    opened = time.process_time()
    deque(islice(Pad.fresh().plaintexts(), round.parameters.ciphertexts), maxlen=0)
    padded = time.process_time()
    expected = sum(np.rint(x * np.float32(2.0**round.parameters.scale)).astype(np.int64) for x in updates)
    return {
        "clients": totals.clients,
        "exact": bool(np.array_equal(totals.values, expected)) and totals.weight == len(updates),
        "cpu_seconds_of_adding_one": (added - began) / len(sent),
        "cpu_seconds_of_blinding": hidden - added,
        "cpu_seconds_of_decrypting": answered - asked,
        "cpu_seconds_of_taking_the_blind_off": opened - answered,
        "cpu_seconds_of_one_pad": padded - opened,
        "bytes_to_the_key_holder_of_float32": len(request.to_bytes()) / (FLOAT32_BYTES * round.parameters.values),
    }


def _context(kind: tenseal.ENCRYPTION_TYPE) -> SharedKeyCKKS:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, encryption_type=kind, **NVFLARE)
    context.global_scale = NVFLARE_SCALE
    return SharedKeyCKKS.from_bytes(context.serialize(save_secret_key=True))


def _ckks(context: SharedKeyCKKS, update: Array) -> int:
    return len(context.encrypt(update))


def _interleaved(calls: dict[str, Callable[[], int]], turns: int) -> tuple[dict[str, float], dict[str, int]]:
    best, sizes = dict.fromkeys(calls, float("inf")), dict.fromkeys(calls, 0)
    for _ in range(turns):
        for name, call in calls.items():
            began = time.process_time()
            sizes[name] = call()
            best[name] = min(best[name], time.process_time() - began)
    return best, sizes
