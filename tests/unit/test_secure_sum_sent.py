"""Of a masked number only the bytes travel that its ring has: sums stay what they are, to the last bit."""

import numpy as np
import pytest

import koinon as kn
from koinon.core.types import Payload, Purpose
from koinon.errors import FormatError
from koinon.fleet.coordinator.payload import Expected
from koinon.fleet.wire.update_file import to_pieces
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.ring import Vector, container, narrowed, sent_as, share, widened
from koinon.privacy.secure_sum.server import Stage, unmask
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors, Terms
from koinon.round.masked import terms_of
from koinon.store import tensors

BYTES = {2: 1, 8: 1, 9: 2, 16: 2, 17: 3, 24: 3, 26: 4, 32: 4, 33: 5, 40: 5, 41: 6, 48: 6, 49: 7, 56: 7, 57: 8, 64: 8}


def random(count: int, bits: int, seed: int = 0) -> np.ndarray:
    """Return numbers whose container is full, as masks fill it."""
    kind = container(bits)
    return np.frombuffer(np.random.default_rng(seed).bytes(count * kind.itemsize), kind).copy()


@pytest.mark.parametrize(("bits", "width"), BYTES.items())
@pytest.mark.parametrize("count", [1, 2, 3, 5, 1000])
def test_numbers_take_the_bytes_of_their_ring_and_come_back_modulo_it(bits: int, width: int, count: int) -> None:
    numbers = random(count, bits)
    sent = narrowed(numbers, bits)
    assert sent.nbytes == count * width
    assert (sent.dtype, sent.shape) == sent_as(count, bits)
    back = widened(sent)
    assert back.dtype == numbers.dtype
    assert back.tolist() == [number % 2 ** (8 * width) for number in numbers.tolist()]


@pytest.mark.parametrize("bits", BYTES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_extreme_total_of_truncated_numbers_is_exact(bits: int, sign: int) -> None:
    """Every client sends its whole share under masks that fill the container; the last one's cancel all others'."""
    cohort = 1 if bits == 2 else 3
    layout = Layout(numbers=7, sums=1, bits=bits, scale=0, cohort=cohort)
    most = sign * share(bits, cohort)
    total, masks = layout.zero(), [random(7, bits, seed) for seed in range(cohort - 1)]
    masks.append(np.zeros(7, container(bits)) - sum(masks, np.zeros(7, container(bits))))
    for mask in masks:
        vector = layout.encode_integers(np.full(7, most), 1, np.array([sign * 0.5]))
        total += Vector(widened(narrowed(vector.body + mask, bits)), vector.tail)
    found = layout.decode(total)
    assert found.update.tolist() == [cohort * most] * 7
    assert (found.weight, found.sums.tolist()) == (cohort, [sign * cohort * 0.5])


@pytest.mark.parametrize("bits", [8, 16, 24, 32, 40, 48, 56, 64])
def test_a_masked_total_of_truncated_numbers_is_that_without_masks(bits: int) -> None:
    """By the real messages, with a client gone: the sum that is read is that of the survivors."""
    layout = Layout.of_bits(1000, 2, bits=bits, cohort=5, bound=1.0)
    names, rng = [f"site{i}" for i in range(5)], np.random.default_rng(bits)
    room = Room(Terms(run="law", round=1, layout=layout), Floors(), Identities.of(names), {"site3": Stage.VECTORS})
    total, plain = layout.zero(), layout.zero()
    room.begin(names)
    room.step(Stage.SHARES)
    for party in room.step(Stage.VECTORS):
        vector = layout.encode(rng.uniform(-1, 1, 1000).astype(np.float32), 1, rng.uniform(0, 9, 2))
        plain += vector
        room.mask(party, vector)
        sent = narrowed(vector.body, bits)
        assert sent.nbytes + vector.tail.nbytes == layout.nbytes
        total += Vector(widened(sent), vector.tail)
    room.step(Stage.AGREEMENT)
    room.step(Stage.UNMASKING)
    unmask(room.server, total)
    found, wanted = layout.decode(total), layout.decode(plain)
    assert np.array_equal(found.update, wanted.update)
    assert (found.weight, found.sums.tolist()) == (wanted.weight, wanted.sums.tolist())


@pytest.mark.parametrize("bits", [12, 24, 32, 40, 64])
def test_a_coordinator_takes_just_the_bytes_of_the_ring(bits: int) -> None:
    """Every other type, shape or length is refused by the file's head alone, before anything is read."""
    algorithm = kn.fedavg(channel=(kn.Clip(1.0), kn.SecureSum()))
    layout = Layout.of_bits(100, 2, bits=bits, cohort=5, bound=1.0)
    expected, vector = Expected.of_masked(algorithm, layout), layout.zero()

    def read(body: np.ndarray) -> tensors.Layout:
        sent = Payload({"body": body, "tail": vector.tail}, np.float32(1), {"examples": np.float32(0)})
        file = b"".join(to_pieces(sent, "salt"))
        assert len(file) <= expected.most_bytes
        return tensors.layout(file, len(file))

    expected.check(read(narrowed(vector.body, bits)))
    width = -(-bits // 8)
    for kind, shape in (("u1", (100, width + 1)), ("u1", (99, width)), ("u1", (100 * width,)), ("<f4", (100,))):
        with pytest.raises(FormatError, match="is due"):
            expected.check(read(np.zeros(shape, kind)))


@pytest.mark.parametrize(("fraction_bits", "largest_weight"), [(20, 4096), (8, 1), (16, 1), (17, 64), (30, 2**24 - 1)])
def test_what_is_said_to_travel_is_what_travels(fraction_bits: int, largest_weight: int) -> None:
    step = kn.SecureSum(fraction_bits=fraction_bits, largest_weight=largest_weight)
    algorithm = kn.replace(
        kn.fedavg(channel=(kn.Clip(1.0), step)), schedule=kn.Synchronous(clients=64, over_selection=1.0)
    )
    value = {"w": np.zeros(1000, np.float32)}
    layout = terms_of(algorithm, "run", 1, Purpose.TRAIN, 0, value=value, cohort=64).layout
    sent = narrowed(layout.zero().body, layout.bits)
    assert sent.nbytes == layout.body_bytes == step.payload_bytes({"w": 1000}, 4000)
