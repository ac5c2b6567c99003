"""What the page on encrypted sums shows is what the code prints and computes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from koinon.privacy.encrypted_sum.parameters import _LARGEST_ERROR, DEGREE, MODULUS, SPECIAL, Parameters
from koinon.privacy.encrypted_sum.trust import statement

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "encrypted-sum.md").read_text(encoding="utf-8")
DECISION = (DOCS / "decisions" / "020-several-key-holders.md").read_text(encoding="utf-8")
OTHER_WAY = re.findall(r"^\| (\d) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| (\S+) \| ([\d.]+) \|$", DECISION, re.MULTILINE)
ROWS = re.findall(r"^\| (\d+) \| (\d) of (\d+) \| 2\^(\d+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)


def test_the_page_has_the_statement_that_is_printed() -> None:
    assert [line[2:] for line in PAGE.splitlines() if line.startswith("> ")] == list(statement(3, signed_list=True))


@pytest.mark.parametrize(("clients", "fields", "bits", "scale", "ratio"), ROWS)
def test_a_row_of_the_page_is_what_is_computed(clients: str, fields: str, bits: str, scale: str, ratio: str) -> None:
    found = Parameters.fitting(
        cohort=int(clients), bound=1.0, largest_weight=1, values=1_000_000, figures=2, fields=int(fields)
    )
    assert (found.field_bits, found.scale) == (int(bits), int(scale))
    assert f"{found.ciphertexts * found.ciphertext_bytes / 4e6:.2f}" == ratio


def test_the_page_has_rows_and_the_moduli() -> None:
    assert len(ROWS) >= 5
    assert f"ciphertext modulus of {MODULUS.bit_length()} bits" in PAGE
    assert f"The {(MODULUS * SPECIAL).bit_length()} bits together" in PAGE
    assert f"8193 / {SPECIAL}" in PAGE


@pytest.mark.parametrize(("holders", "clients", "noise", "drowned", "here", "wider"), OTHER_WAY)
def test_what_drowning_would_leave_room_for_is_computed(
    holders: str, clients: str, noise: str, drowned: str, here: str, wider: str
) -> None:
    """The margins of the way that was not taken: additive shares of the secret and of the public key's error."""
    parts = int(holders) * DEGREE
    one = (
        1 + -(-_LARGEST_ERROR * (2 * parts + 1) // SPECIAL) + parts / 2
    )  # of scaling and rounding, of encryption, of rounding
    bound = int(clients) * one
    flooded = bound + int(holders) * 2**40 * bound
    assert (f"{math.log2(bound):.1f}", f"{math.log2(flooded):.1f}") == (noise, drowned)
    for room, modulus in ((here, MODULUS), (wider, 2**92)):
        bits = math.log2(modulus / 2 / flooded)
        assert room == (f"{bits:.1f}" if bits > 0 else "none")


def test_the_decision_has_its_rows() -> None:
    assert len(OTHER_WAY) == 4
