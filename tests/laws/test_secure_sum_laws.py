"""Laws of the secure sum: the sum and nothing else comes out, for every set of survivors, or nothing at all."""

import itertools
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from koinon.errors import FormatError, ProtocolError
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum import masks, saved, shamir
from koinon.privacy.secure_sum.client import Client, Ready
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import Cohort
from koinon.privacy.secure_sum.neighbours import Assumptions, Degree, quorum
from koinon.privacy.secure_sum.primitives import Role, derive
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.server import Stage, close, take, unmask
from koinon.privacy.secure_sum.simulate import Identities, Outcome, Room, simulate
from koinon.privacy.secure_sum.terms import Floors, Past, Terms
from koinon.privacy.secure_sum.wire import joined, pieces

ORDER = tuple(Stage)


def layout_of(cohort: int, numbers: int = 33, bits: int = 32) -> Layout:
    return Layout.of_bits(numbers, 2, bits=bits, cohort=cohort, bound=1.0, largest_weight=10)


def vectors_of(layout: Layout, cohort: int, seed: int = 0) -> dict[str, Vector]:
    rng = np.random.default_rng(seed)
    return {
        f"site{i:04d}": layout.encode(
            rng.uniform(-1, 1, layout.numbers).astype(np.float32), int(rng.integers(1, 11)), rng.uniform(0, 9, 2)
        )
        for i in range(cohort)
    }


def copies(vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    return {name: vector.copy() for name, vector in vectors.items()}


def plain_sum(layout: Layout, vectors: Mapping[str, Vector], of: tuple[str, ...]) -> Vector:
    total = layout.zero()
    for name in of:
        total += vectors[name]
    return total


def same(left: Vector, right: Vector) -> bool:
    return np.array_equal(left.body, right.body) and np.array_equal(left.tail, right.tail)


def run(layout: Layout, vectors: Mapping[str, Vector], missing: Mapping[str, Stage], threads: int = 1) -> Outcome:
    return simulate(Terms(run="law", round=1, layout=layout), copies(vectors), missing, threads=threads)


@pytest.mark.parametrize("cohort", [3, 4, 5, pytest.param(6, marks=pytest.mark.slow)])
def test_the_sum_is_exact_for_every_set_of_survivors_and_there_is_none_below_the_threshold(cohort: int) -> None:
    layout = layout_of(cohort)
    vectors = vectors_of(layout, cohort)
    for size in range(cohort + 1):
        for alive in itertools.combinations(vectors, size):
            missing = dict.fromkeys(vectors.keys() - set(alive), Stage.VECTORS)
            if size < quorum(cohort):
                with pytest.raises(ProtocolError, match="There is no result"):
                    run(layout, vectors, missing)
            else:
                found = run(layout, vectors, missing)
                assert found.survivors == alive
                assert same(found.total, plain_sum(layout, vectors, alive))


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(3, 8), st.sampled_from([16, 32, 64]))
def test_whoever_falls_silent_whenever_the_sum_is_that_of_the_survivors_or_there_is_none(
    data: st.DataObject, cohort: int, bits: int
) -> None:
    layout = layout_of(cohort, bits=bits)
    vectors = vectors_of(layout, cohort, seed=cohort)
    silent = st.dictionaries(st.sampled_from(sorted(vectors)), st.sampled_from(ORDER), max_size=3)
    missing = data.draw(silent)
    said = {
        stage: [v for v in vectors if v not in missing or ORDER.index(missing[v]) > ORDER.index(stage)]
        for stage in ORDER
    }
    members = len(said[Stage.KEYS])
    enough = members >= 3 and all(len(said[stage]) >= quorum(members) for stage in ORDER[1:])
    if enough:
        found = run(layout, vectors, missing)
        assert list(found.survivors) == said[Stage.VECTORS]
        assert same(found.total, plain_sum(layout, vectors, found.survivors))
    else:
        with pytest.raises(ProtocolError, match="There is no result"):
            run(layout, vectors, missing)


def test_a_sparse_graph_recovers_what_goes_missing() -> None:
    """A member falls silent before each message; 101 are left in the cohort, and that is enough for a sparse graph."""
    layout = layout_of(102)
    vectors = vectors_of(layout, 102)
    silent = zip(sorted(vectors)[3::20], ORDER, strict=True)
    found = run(layout, vectors, dict(silent))
    assert len(found.survivors) == 99
    assert max(found.sent.values()) < 10_000, (
        "in the complete graph the shares alone are 8,400 bytes, and as much again"
    )
    assert same(found.total, plain_sum(layout, vectors, found.survivors))


def test_neighbours_are_drawn_by_each_client_evenly_and_anew_for_every_cohort() -> None:
    """Everybody is drawn as often as anybody; another cohort, or another client's entropy, is another draw."""
    cohort, terms = Cohort(tuple(f"{i:03d}" for i in range(100)), (), Degree(41, 31), bytes(32)), bytes(32)
    drawn = np.zeros(100)
    for i in range(400):
        holders = half.Own(sha256(f"{i}".encode()).digest(), terms).holders(cohort, 7)
        assert len(set(holders)) == 41
        assert 7 not in holders
        drawn[list(holders)] += 1
    expected = 400 * 41 / 99
    assert abs(np.delete(drawn, 7) - expected).max() < 5 * (expected * 58 / 99) ** 0.5
    one, other = half.Own(b"1" * 32, terms), replace(cohort, terms=b"?" * 32)
    assert one.holders(cohort, 7) == one.holders(cohort, 7) != one.holders(other, 7)


def test_every_key_has_one_use() -> None:
    """Role, ends, their order and the transcript all change what is derived; so do body and tail of a vector."""
    seen = {
        derive(b"k" * 32, salt, role, *ends)
        for salt in (b"a" * 32, b"b" * 32)
        for role in Role
        for ends in ((), (1,), (2,), (1, 2), (2, 1))
    }
    assert len(seen) == 2 * len(Role) * 5
    vector = Vector(np.zeros(8, np.uint64), np.zeros(8, np.uint64))
    masks.apply(vector, [masks.Mask(b"k" * 32, True)])
    assert not set(vector.body.tolist()) & set(vector.tail.tolist())


@pytest.mark.slow
def test_a_thousand_clients() -> None:
    layout = layout_of(1000)
    vectors = vectors_of(layout, 1000)
    found = run(layout, vectors, dict.fromkeys(sorted(vectors)[3::10], Stage.VECTORS))
    assert len(found.survivors) == 900
    assert same(found.total, plain_sum(layout, vectors, found.survivors))
    assert max(found.sent.values()) < 52 << 10  # of which codes are 32 KiB


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("numbers", [1, 32_768, 100_001, 1_200_001])
def test_blocks_and_threads_do_not_show(threads: int, numbers: int) -> None:
    layout = layout_of(3, numbers)
    vectors = vectors_of(layout, 3)
    assert same(run(layout, vectors, {}, threads).total, plain_sum(layout, vectors, tuple(vectors)))
    left, right = layout.zero(), layout.zero()
    keys = [masks.Mask(bytes([i]) * 32, i % 2 == 0) for i in range(70)]
    masks.apply(left, keys, threads)
    masks.apply(right, keys)
    assert same(left, right)
    masks.apply(left, [mask.taken_off() for mask in keys])
    assert same(left, layout.zero())


def masked(cohort: int, numbers: int, bits: int = 32) -> tuple[Room, dict[str, Vector]]:
    """Return a room in which everybody has masked zeros."""
    layout = layout_of(cohort, numbers, bits)
    vectors = {f"site{i:04d}": layout.zero() for i in range(cohort)}
    room = Room(Terms(run="law", round=1, layout=layout), Floors(), Identities.of(vectors), {})
    room.begin(vectors)
    room.step(Stage.SHARES)
    for party in room.step(Stage.VECTORS):
        room.mask(party, vectors[party])
    return room, vectors


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_a_masked_vector_alone_is_uniform(bits: int) -> None:
    _, vectors = masked(3, 200_000, bits)
    for vector in vectors.values():
        counts = np.bincount(vector.body.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6
        for bit in range(bits):
            ones = int(((vector.body >> np.array(bit, vector.body.dtype)) & np.array(1, vector.body.dtype)).sum())
            assert abs(ones - 100_000) < 6 * 200_000**0.5 / 2


def linear_complexity(bits: list[int]) -> int:
    """Return the length of the shortest linear feedback register that gives the bits (Berlekamp 1968, Massey 1969)."""
    connection, before, length, since, seen = 1, 1, 0, 1, 0
    for place, bit in enumerate(bits):
        seen = seen << 1 | bit  # the newest bit is the lowest
        if ((connection & seen).bit_count() & 1) == 0:
            since += 1
        elif 2 * length <= place:
            connection, before, length, since = connection ^ before << since, connection, place + 1 - length, 1
        else:
            connection, since = connection ^ before << since, since + 1
    return length


def test_a_short_register_is_found() -> None:
    state, bits = [1, 0, 0, 1, 1], []
    for _ in range(200):
        bits.append(state[0])
        state = [*state[1:], state[0] ^ state[2]]
    assert linear_complexity(bits) == 5
    assert linear_complexity([0] * 99 + [1]) == 100


@pytest.mark.parametrize("bit", [0, 31])
def test_no_linear_register_makes_a_clients_masks(bit: int) -> None:
    """Of L random bits the complexity is L/2 (Rueppel 1986). Masks of a Mersenne twister have 19,937 at most, however many."""
    count = 6000
    _, vectors = masked(4, count)
    lowest = (vectors["site0000"].body >> np.uint32(bit) & np.uint32(1)).tolist()
    assert abs(linear_complexity(lowest) - count / 2) < 25


@given(st.integers(2, 12), st.integers(0, 10), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_any_t_of_the_shares_open_a_secret_and_fewer_fit_every_secret(
    threshold: int, more: int, secret: bytes, other: bytes
) -> None:
    """With t - 1 shares and any other secret there is exactly one polynomial through both: they say nothing."""
    secret, other = (bytes([raw[0] & 0x7F]) + raw[1:] for raw in (secret, other))  # below the prime
    stream = np.random.default_rng(threshold).bytes(32 * (threshold - 1))
    shares = shamir.split(secret, range(threshold + more), threshold, stream)
    assert shamir.combine(shares, threshold) == secret
    last = dict(list(shares.items())[-threshold:])
    assert shamir.combine(last, threshold) == secret
    few = dict(list(shares.items())[: threshold - 1])
    with pytest.raises(ProtocolError, match=f"{threshold} shares are needed"):
        shamir.combine(few, threshold)
    # One more share, of a new holder, that makes the same few open to the other secret.
    new = threshold + more + 7
    *known, missing = shamir.lagrange([*few, new])
    partly = sum(w * int.from_bytes(share, "big") for w, share in zip(known, few.values(), strict=True))
    value = (int.from_bytes(other, "big") - partly) * pow(missing, -1, shamir.PRIME) % shamir.PRIME
    assert shamir.combine({**few, new: value.to_bytes(32, "big")}, threshold) == other


def test_few_shares_of_two_secrets_look_alike() -> None:
    """The last byte of a share, over many dealings of the same secret, is uniform whatever the secret."""
    for secret in (bytes(32), b"\xff" * 31 + b"\x01"):
        rng, last = np.random.default_rng(1), []
        for _ in range(4000):
            last.append(shamir.split(secret[::-1], [4], 3, rng.bytes(64))[4][-1])
        assert stats.chisquare(np.bincount(last, minlength=256)).pvalue > 1e-6


def states(cohort: int = 3) -> list[half.State | Client]:
    """Return every record that a client goes through."""
    layout = layout_of(cohort, 5)
    terms = Terms(run="law", round=1, layout=layout, assumptions=Assumptions(corrupt=0.3))
    vectors = vectors_of(layout, cohort)
    room = Room(terms, Floors(roster=bytes(32)), Identities.of(vectors), {})
    found: list[half.State | Client] = [Client(party="site0000", floors=Floors(roster=b"r" * 32), past=Past(run="law"))]
    room.begin(vectors)
    found.append(room.states["site0000"])
    room.step(Stage.SHARES)
    found.append(room.states["site0000"])
    for party in room.step(Stage.VECTORS):
        found += [room.states[party]] if party == "site0000" else []
        room.mask(party, vectors[party])
    found.append(room.states["site0000"])
    room.step(Stage.AGREEMENT)
    found.append(room.states["site0000"])
    return found


def test_every_record_comes_back_from_its_bytes() -> None:
    kinds = []
    for state in states():
        assert saved.from_bytes(saved.to_bytes(state)) == state
        kinds.append(type(state).__name__)
    assert kinds == ["Client", "Advertised", "Shared", "Ready", "Masked", "Masked"]


def test_a_damaged_record_is_an_error() -> None:
    for state in states():
        raw = saved.to_bytes(state)
        for broken in (raw[:-1], raw[:9], b"", raw.replace(b'"party"', b'"prty"'), raw[:5] + b"[]", raw[1:]):
            with pytest.raises(FormatError, match="no record of a client"):
                saved.from_bytes(broken)


def test_the_secrets_of_a_client_are_gone_once_it_has_masked() -> None:
    found = states()
    own = next(state.own for state in found if isinstance(state, Ready))
    for state in found:
        raw = saved.to_bytes(state)
        assert (b64encode(own.entropy) in raw) == isinstance(state, half.Advertised | half.Shared | half.Ready)
        for role in (Role.SELF_SEED, Role.MASK_KEY):
            assert b64encode(own.secret(role)) not in raw


def test_a_client_that_is_killed_after_any_answer_says_it_again_byte_for_byte() -> None:
    """It writes its record down, dies before its message leaves, and finds the coordinator's message again."""
    layout = layout_of(5)
    vectors = vectors_of(layout, 5)
    room = Restarted(Terms(run="law", round=1, layout=layout), Floors(), Identities.of(vectors), {})
    total, plain = layout.zero(), copies(vectors)
    room.begin(vectors)
    for stage in ORDER[1:]:
        for party in room.step(stage):
            if stage is Stage.VECTORS:
                room.mask(party, vectors[party])
                total += vectors[party]
    unmask(room.server, total)
    assert same(total, plain_sum(layout, plain, tuple(plain)))
    assert len(room.repeated) == 5 * len(ORDER[1:])


class Restarted(Room):
    """A room in which everybody dies after everything."""

    def step(self, stage: Stage) -> tuple[str, ...]:
        _, letters = close(self.server)
        there = super().step(stage)
        for party in there:
            again = saved.from_bytes(saved.to_bytes(self.states[party]))
            assert again == self.states[party]
            verify = self._identities.verify
            after, said = half.answer(again, letters[party], verify)  # type: ignore[arg-type]
            assert after == again
            if said is not None:
                before = self.server
                self.server = take(self.server, party, said, verify)  # raises unless it is the same
                assert before == self.server
            self.states[party] = after
            self.repeated.append((party, stage))
        return there

    @property
    def repeated(self) -> list[tuple[str, Stage]]:
        return self.__dict__.setdefault("_repeated", [])


@given(st.integers(0, 2000), st.integers(65, 300), st.randoms(use_true_random=False))
def test_a_long_message_travels_in_pieces(count: int, largest: int, random: object) -> None:
    body = b"kss\x03\x02" + np.random.default_rng(count).bytes(count)
    letters = list(pieces(body, largest))
    assert all(len(letter) <= largest for letter in letters)
    random.shuffle(letters)  # type: ignore[attr-defined]
    assert joined(letters) == body
    if len(letters) > 1:
        assert joined(letters[1:]) is None
        assert joined([*letters, letters[0]]) == body
        with pytest.raises(FormatError):
            joined([letters[0][:-1] + bytes([letters[0][-1] ^ 1]), *letters[1:]])


def test_an_identity_of_the_driver_is_a_signature() -> None:
    """What the driver verifies once is what Ed25519 verifies."""
    key = Ed25519PrivateKey.generate()
    known = Identities({"a": key})
    assert known.verify("a", b"text", key.sign(b"text"))
    assert not known.verify("a", b"text", key.sign(b"other"))
    assert not known.verify("b", b"text", key.sign(b"text"))
