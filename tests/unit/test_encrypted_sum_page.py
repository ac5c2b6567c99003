"""What the page on encrypted sums shows is what the code prints and computes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from koinon.privacy.encrypted_sum.parameters import MODULUS, SPECIAL, Parameters
from koinon.privacy.encrypted_sum.trust import statement

PAGE = (Path(__file__).parents[2] / "docs" / "encrypted-sum.md").read_text(encoding="utf-8")
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
