"""The codecs: known answers, awkward leaves, and the same payload from every engine, on the wire as in the simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors

import koinon as kn
from koinon import exact, keys, tree
from koinon.core.execution import Plan
from koinon.core.types import Context, Job, Partial, Passes, Payload, Update
from koinon.engines.catalogue import engine
from koinon.fleet.coordinator.payload import Expected
from koinon.fleet.wire.update_file import to_pieces
from koinon.round.client import initial_state
from koinon.round.stopping import Stop
from koinon.round.training import Evaluation, FederatedTraining
from koinon.store.tensors import layout, pieces
from koinon.testing.models import SoftmaxRegression
from koinon.testing.samples import classified

CONTEXT = Context(keys.root(3), np.float32(1))
LARGEST = float.fromhex("0x1.fep127")  # the largest bfloat16
ROUNDED = {
    "one": (1.0, 0x3F80),
    "minus two": (-2.0, 0xC000),
    "zero": (0.0, 0x0000),
    "minus zero": (-0.0, 0x8000),
    "below half": (1 + 2**-8 - 2**-23, 0x3F80),
    "half, down to even": (1 + 2**-8, 0x3F80),
    "above half": (1 + 2**-8 + 2**-23, 0x3F81),
    "half, up to even": (1 + 3 * 2**-8, 0x3F82),
    "carry into the exponent": (2 - 2**-23, 0x4000),
    "largest": (LARGEST, 0x7F7F),
    "just beyond the largest": (LARGEST * (1 + 2**-9 - 2**-20), 0x7F7F),
    "too large": (float(np.finfo(np.float32).max), 0x7F80),
    "too large below zero": (-float(np.finfo(np.float32).max), 0xFF80),
    "infinity": (float("inf"), 0x7F80),
    "minus infinity": (float("-inf"), 0xFF80),
    "subnormal": (2.0**-133, 0x0001),
    "half of the smallest, down to even": (2.0**-134, 0x0000),
    "more than half of the smallest": (2.0**-134 + 2.0**-149, 0x0001),
    "a subnormal that becomes normal": (2.0**-126 - 2.0**-149, 0x0080),
}


@dataclass(frozen=True)
class Sends:
    """A client's work that trains nothing: its update is the model it was sent, whatever the engine."""

    def passes(self) -> Passes:
        return Passes(batch_size=None)

    def learning_rate_factor(self, round: int) -> float:
        return 1.0

    def init(self, variables: Any) -> Any:
        return {}

    def begin(self, task: Any, broadcast: Any, state: Any) -> Any:
        return {}

    def step(self, model: Any, carry: Any, batch: Any) -> Any:
        return carry, {"examples": batch.mask.sum()}

    def finish(self, task: Any, broadcast: Any, carry: Any) -> Any:
        return Update(dict(broadcast), task.examples), {}


def sent(codec: Any, value: Any) -> Any:
    return codec.encode(value, {}, CONTEXT)[0]


def through(codec: Any, value: Any) -> Any:
    return codec.decode(sent(codec, value), CONTEXT)


@pytest.mark.parametrize("name", ROUNDED)
def test_bfloat16_of_known_numbers(name: str) -> None:
    number, bits = ROUNDED[name]
    for x in (np.float32(number), np.array(number, np.float32), np.array([number], np.float32)):
        payload = sent(kn.Bfloat16(), {"x": x})["x"]["bfloat16"]
        assert payload.dtype == np.uint16 and np.shape(payload) == np.shape(x)
        assert np.all(payload == bits), f"{number!r} became {payload!r}"


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF])
def test_every_nan_stays_one(bits: int) -> None:
    x = np.array([bits], np.uint32).view(np.float32)
    assert np.isnan(through(kn.Bfloat16(), {"x": x})["x"]).all()
    assert np.isnan(through(kn.Bfloat16(), {"x": x[0]})["x"])


def test_leaves_of_any_kind_keep_their_names_and_shapes() -> None:
    draw = np.random.default_rng(1)
    table = draw.normal(size=(6, 8)).astype(np.float32)
    value = {
        "bfloat16": table[::2, ::-3],  # also a layer's name, and strided memory
        "code": {"bfloat16": np.float32(0.1), "scale": np.zeros((0, 3), np.float32)},
        "deep": {"bfloat16": table},
        "nothing": {},
    }
    for codec in (kn.Bfloat16(), kn.Quantise(), kn.Quantise(block=2)):
        back = through(codec, value)
        assert tree.structure(back) == tree.structure(value)
        for a, b in zip(tree.leaves(back), tree.leaves(value), strict=True):
            assert np.shape(a) == np.shape(b) and a.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1 / 100 if codec != kn.Bfloat16() else 1 / 256, atol=0.02)
    assert np.array_equal(through(kn.Bfloat16(), value)["bfloat16"], through(kn.Bfloat16(), table)[::2, ::-3])


def test_float64_is_sent_as_its_nearest_float32() -> None:
    wide = np.array([1.1, 1e-3, -7.7])
    assert tree.digest(sent(kn.Bfloat16(), wide)) == tree.digest(sent(kn.Bfloat16(), wide.astype(np.float32)))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (5,), (2, 3), (13,)])
@pytest.mark.parametrize("block", [None, 1, 3, 5, 100])
def test_a_scale_for_every_block(shape: tuple[int, ...], block: int | None) -> None:
    x = np.full(shape, -3.0, np.float32)
    payload = sent(kn.Quantise(block=block), x)
    count = x.size
    wanted = () if block is None else (max(1, -(-count // min(block, max(1, count)))),)
    assert payload["scale"].shape == wanted and payload["scale"].dtype == np.float32
    assert payload["code"].shape == shape and payload["code"].dtype == np.int8
    np.testing.assert_allclose(kn.Quantise(block=block).decode(payload, CONTEXT), x, rtol=1e-6)


@pytest.mark.parametrize("block", [None, 4])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-30])
def test_zeros_and_the_smallest_numbers_stay_small(size: float, block: int | None) -> None:
    x = np.full(10, -size, np.float32)
    assert np.abs(through(kn.Quantise(block=block), x)).max() <= max(size, 1e-30) / 127 * 1.01 + size


@pytest.mark.parametrize("block", [None, 4])
def test_the_largest_numbers_do_not_overflow(block: int | None) -> None:
    x = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max, 0, 1e38, 1, 1, 1], np.float32)
    back = through(kn.Quantise(block=block), x).astype(np.float64)
    assert np.isfinite(back).all()
    assert np.abs(back - x)[:4].max() < np.finfo(np.float32).max / 126


def test_the_largest_number_is_never_rounded_past_the_last_code() -> None:
    """A scale rounded down makes it more than 127 steps long, and 128 in eight bits would be -128."""
    largest = np.float32(1.0)
    while largest / (largest * np.float32(1 / 127)) <= 127:
        largest = np.nextafter(largest, np.float32(2))
    x = np.full(2**20, largest)
    assert np.all(sent(kn.Quantise(), {"x": x})["x"]["code"] == 127)
    assert np.all(sent(kn.Quantise(), {"x": -x})["x"]["code"] == -127)


CODECS = [kn.Bfloat16(), kn.Quantise(), kn.Quantise(4), kn.Quantise(block=4), kn.Quantise(2, block=5)]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_engines_send_one_payload_and_add_it_up_alike(codec: Any) -> None:
    here, compiled = (_sent_by(name, codec) for name in ("reference", "jax"))
    assert tree.digest(here[0].value) == tree.digest(compiled[0].value)
    assert {leaf.dtype for leaf in tree.leaves(here[0].value)} <= {np.dtype(t) for t in ("u2", "i1", "f4")}
    assert tree.digest(here[1].total) == tree.digest(compiled[1].total)
    assert here[1].rows.accepted.all() and any(np.any(leaf) for leaf in tree.leaves(here[1].total))


def _sent_by(name: str, codec: Any, size: float = 1.0) -> tuple[Payload, Partial]:
    """Return what the second client sends, and the total of all, where every client's update is the same model."""
    algorithm = kn.replace(kn.fedavg(channel=(codec,)), work=Sends())
    plan = Plan(algorithm, SoftmaxRegression(), classified())
    program = FederatedTraining(plan, Stop(rounds=1), Evaluation(), 5)
    draw = np.random.default_rng(4)
    first = tree.to_numpy(plan.model.init(program.initial_key()))
    awkward = [np.float32(x) for x in (1e-42, -3e-39, 0.0, -0.0, 7e5)]
    weights = tree.map(lambda x: (size * draw.normal(size=x.shape)).astype(np.float32), first)
    for leaf in tree.leaves(weights):
        leaf.reshape(-1)[:3] = awkward[:3] if leaf.size < 5 else awkward[2:5]
    job = program.next(program.init(weights), 0.0)
    assert isinstance(job, Job)
    states = tree.map(
        lambda x: np.stack([np.asarray(x)] * len(job.tasks)), tree.to_numpy(initial_state(algorithm, job.broadcast))
    )
    new = engine(name)
    payload, _ = new.send(plan, job.chunk(np.array([1])), tree.map(lambda x: x[1:2], states))
    return payload, new.run(plan, job, states)


@pytest.mark.parametrize("name", ["reference", "jax"])
def test_what_bfloat16_cannot_hold_refuses_the_client(name: str) -> None:
    sound = _sent_by(name, kn.Bfloat16())[1]
    assert sound.weight > 0
    beyond = _sent_by(name, kn.Bfloat16(), size=1e38)[1]
    assert beyond.weight == 0 and not beyond.rows.accepted.all(axis=1).any()


def test_a_file_of_bfloat16_is_read_as_such_by_the_formats_own_library() -> None:
    x = np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32)
    flat = dict(tree.items({"update": sent(kn.Bfloat16(), {"w": x})}))
    assert list(flat) == ["update.w.bfloat16"]
    file = b"".join(pieces(flat, bfloat16=["update.w.bfloat16"]))
    ((name, entry),) = safetensors.deserialize(file)
    assert (name, entry["dtype"], entry["shape"]) == ("update.w.bfloat16", "BF16", [3, 5])
    theirs = np.frombuffer(entry["data"], ml_dtypes.bfloat16).reshape(3, 5)
    assert np.array_equal(theirs, x.astype(ml_dtypes.bfloat16))
    (tensor,) = layout(file, len(file)).tensors
    assert tensor.type == "BF16"
    ours = layout(file, len(file)).views(file)["update.w.bfloat16"]
    assert np.array_equal(kn.Bfloat16().decode({"bfloat16": ours}, CONTEXT), theirs.astype(np.float32))


@pytest.mark.parametrize("codec", [None, *CODECS], ids=repr)
def test_the_coordinator_expects_what_a_codec_sends(codec: Any) -> None:
    algorithm = kn.fedavg(channel=() if codec is None else (codec,))
    draw = np.random.default_rng(5)
    value = {"params": {"bfloat16": draw.normal(size=(4, 3)).astype(np.float32), "b": np.float32(0.3)}, "state": {}}
    payload = value if codec is None else sent(codec, value)
    file = b"".join(to_pieces(Payload(payload, np.float32(7), {"examples": np.float32(7)}), "salt"))
    expected, found = Expected.of(algorithm, value), layout(file, len(file))
    expected.check(found)
    kinds = {tensor.type for tensor in found.tensors if tensor.name.startswith("update.")}
    assert kinds == ({"BF16"} if codec == kn.Bfloat16() else {"F32"} if codec is None else {"I8", "F32"})
    views = found.views(file)
    back = tree.fill(expected.structure, (views[f"update.{name}"] for name in tree.names(expected.structure)))
    assert tree.digest(back) == tree.digest(payload)


def test_exact_zero_is_sent_as_exact_zero() -> None:
    for codec in CODECS:
        total = exact.zero({"x": np.zeros(9)})
        exact.accumulate(total, through(codec, {"x": np.zeros(9, np.float32)}), 5)
        assert not total["x"].any()
