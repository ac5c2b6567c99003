"""What a cohort packs and adds up comes out exactly, at the extreme of every field; bytes come back as they were."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from koinon import exact
from koinon.errors import ConfigurationError, FormatError
from koinon.privacy.encrypted_sum import packing
from koinon.privacy.encrypted_sum.ciphertexts import packed, reduced, unpacked
from koinon.privacy.encrypted_sum.packing import FIGURE_SCALE, Packed
from koinon.privacy.encrypted_sum.parameters import BLOCK, DEGREE, MODULUS, STEP, Parameters
from koinon.tree import Array

COHORTS = st.integers(2, 100_000)
WORDS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).integers(0, MODULUS, DEGREE, np.uint64))


@st.composite
def parameters(draw: st.DrawFn, cohorts: st.SearchStrategy[int] = COHORTS) -> Parameters:
    """Draw parameters that fit."""
    while True:
        try:
            return Parameters.fitting(
                cohort=draw(cohorts),
                bound=draw(st.floats(1e-6, 1e6)),
                largest_weight=draw(st.integers(1, 2**24 - 1)),
                values=draw(st.integers(1, 3 * BLOCK)),
                figures=draw(st.integers(0, 3)),
                fields=draw(st.integers(1, 4)),
            )
        except ConfigurationError:
            continue


def _plaintexts(one: Packed, count: int) -> Array:
    return np.stack([one.plaintext(index) for index in range(count)])


@given(parameters(st.integers(2, 40)), st.data())
@settings(deadline=None, max_examples=60)
def test_a_cohort_at_the_extreme_of_every_field_is_summed_exactly(found: Parameters, data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    signs = data.draw(st.sampled_from([(1.0, 1.0), (-1.0, -1.0), (-1.0, 1.0)]))
    mask, total, expected = np.uint64((1 << found.plain_bits) - 1), 0, 0
    figures = [float(found.cohort), -0.5, 12345.0][: found.figures]
    for _ in range(found.cohort):
        x = random.choice(np.array(signs, np.float32) * np.float32(found.bound), found.values)
        total = total + _plaintexts(Packed(found, x, found.largest_weight, figures, "a"), found.ciphertexts)
        expected = expected + np.rint(x * (np.float32(found.largest_weight) * np.float32(2.0**found.scale))).astype(
            "<i8"
        )
    sums = packing.unpacked(found, total & mask, found.cohort)
    assert np.array_equal(sums.values, expected)
    assert np.abs(expected).max() == found.cohort * found.limit or signs == (-1.0, 1.0)
    assert sums.weight == found.cohort * found.largest_weight
    rounded = np.round(np.array(figures) * FIGURE_SCALE) / FIGURE_SCALE
    assert np.array_equal(sums.figures, found.cohort * rounded)
    assert ((total & mask)[:, 0] == found.cohort).all()


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=9), st.integers(1, 2**24 - 1))
def test_the_conversion_is_the_exact_sums_with_another_scale(x: list[float], weight: int) -> None:
    found = Parameters(cohort=2, bound=4.0, largest_weight=2**24 - 1, scale=4, values=len(x))
    one = Packed(found, np.array(x, np.float32), weight, [], "a").plaintext(0)
    sums = packing.unpacked(found, one[None], 1)
    assert np.array_equal(
        sums.values, exact.convert(np.array(x, np.float32) * np.float32(2.0**-26), np.float32(weight))
    )


@given(parameters())
@settings(deadline=None)
def test_parameters_leave_room_for_the_whole_cohort_and_its_noise(found: Parameters) -> None:
    assert found.cohort * found.limit < 2 ** (found.field_bits - 1)
    assert found.cohort * (2**found.digit_bits - 1) < 2 ** (found.field_bits - 1)
    assert found.fields * found.field_bits == found.plain_bits
    assert found.margin_bits >= 0
    assert found.cohort < 2**found.plain_bits  # the first coefficient counts them
    assert found.cells * found.fields >= found.values + (1 + found.figures) * found.digits


@given(COHORTS, st.floats(1e-6, 1e6), st.integers(1, 2**24 - 1), st.integers(1, 4))
@settings(deadline=None)
def test_the_scale_is_the_largest_that_fits(cohort: int, bound: float, largest_weight: int, fields: int) -> None:
    asked = {"cohort": cohort, "bound": bound, "largest_weight": largest_weight, "values": 1}

    def fits(scale: int) -> bool:
        try:
            return Parameters(**asked, scale=scale).fields >= fields
        except ConfigurationError:
            return False

    fitting = [scale for scale in range(-30, 31) if fits(scale)]
    if fitting:
        assert Parameters.fitting(**asked, fields=fields).scale == max(fitting)
    else:
        with pytest.raises(ConfigurationError):
            Parameters.fitting(**asked, fields=fields)


def vars_of(found: Parameters) -> dict[str, float]:
    """Return the fields of the record."""
    return {name: getattr(found, name) for name in ("cohort", "bound", "largest_weight", "scale", "values", "figures")}


@given(WORDS, st.integers(0, 14))
def test_a_polynomial_comes_back_but_for_what_was_dropped(words: Array, steps: int) -> None:
    dropped = STEP * steps
    sent = packed(words, dropped)
    assert len(sent) == DEGREE * (60 - dropped) // 8
    back = unpacked(memoryview(sent), dropped)
    assert (back < MODULUS).all()
    gap = (back.astype(object) - words.astype(object) + MODULUS // 2) % MODULUS - MODULUS // 2
    assert max(abs(gap)) <= (1 << dropped) >> 1


def test_any_bytes_are_a_polynomial() -> None:
    for dropped in range(0, 60, STEP):
        assert (unpacked(memoryview(b"\xff" * (DEGREE * (60 - dropped) // 8)), dropped) < MODULUS).all()


@given(WORDS, WORDS)
def test_sums_are_reduced(left: Array, right: Array) -> None:
    both = (left.astype(object) + right.astype(object)) % MODULUS
    assert np.array_equal(reduced(left + right).astype(object), both)


@given(parameters())
@settings(deadline=None)
def test_parameters_come_back_from_their_text(found: Parameters) -> None:
    again = Parameters.from_text(found.text())
    assert again == found
    assert again.digest == found.digest


@given(parameters(), st.data())
@settings(deadline=None)
def test_another_parameter_has_another_digest(found: Parameters, data: st.DataObject) -> None:
    other = Parameters(
        **{**vars_of(found), "values": data.draw(st.integers(1, 10**6).filter(lambda n: n != found.values))}
    )
    assert other.digest != found.digest


@given(st.binary(max_size=300))
def test_other_texts_are_no_parameters(text: bytes) -> None:
    with pytest.raises(FormatError):
        Parameters.from_text(text)
