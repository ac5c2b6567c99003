"""What a receipt says of a void round, what cannot be said of one, and what ``koinon verify`` makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.chains import COORDINATOR, chain, opening
from koinon.cli.verify import Evidence, Standing, look
from koinon.errors import FormatError
from koinon.fleet.wire.receipts import Receipt, Sealed, canonical, check_chain, seal

WHY = "nice fell silent before the sum was opened, which takes 3 clients: nothing of it is known"


def void(receipt: Receipt, **changes: object) -> Receipt:
    """Return the receipt of the same round, had its training been void."""
    nobody = tuple(replace(entry, reason=entry.reason or WHY) for entry in receipt.train)
    stayed = {"model_after": receipt.model_before, "variables": receipt.model_before, "evaluate": ()}
    return replace(receipt, **{"train": nobody, "aggregate": None, "void": {"train": WHY}, **stayed, **changes})


def last_void(**changes: object) -> list[Sealed]:
    """Return a chain of two rounds of which the last is void."""
    first, second = chain(2)
    return [first, seal(void(second.receipt, **changes), COORDINATOR)]


def told(receipts: list[Sealed]) -> list[tuple[Standing, str]]:
    evidence = Evidence(name="run", opening=opening(), texts=tuple(sealed.text() for sealed in receipts))
    return [(point.standing, point.what) for point in look(evidence)]


def test_it_is_signed_and_chained_like_any_other_and_told() -> None:
    receipts = last_void()
    assert check_chain(opening(), receipts) == ()
    assert [Sealed.of_text(sealed.text()) for sealed in receipts] == receipts
    line = f"train of round 2: void, counts nobody, and the model stayed; in round 2: {WHY}"
    assert (Standing.HOLDS, line) in told(receipts)
    assert not any("void" in what for _, what in told(chain(2)))


def test_others_are_as_long_as_they_were() -> None:
    """Chains of earlier versions hold: what is not void says nothing of it, and none may be made to."""
    text = chain(1)[0].text()
    assert "void" not in text
    found = json.loads(text)
    found["receipt"]["void"] = {}
    with pytest.raises(FormatError, match="canonical"):
        Sealed.of_text(canonical(found))


def test_no_model_and_no_sum_comes_of_it() -> None:
    other = chain(2)[1].receipt
    for changes in ({"model_after": other.model_after}, {"aggregate": other.aggregate}):
        receipts = last_void(**changes)
        (finding,) = check_chain(opening(), receipts)
        assert (finding.round, finding.what) == (2, "it is void, and yet another model or a sum came of it")
        assert not any("void, counts nobody" in what for _, what in told(receipts))


def test_what_is_void_counts_nobody() -> None:
    whole = chain(2)[1].receipt
    with pytest.raises(FormatError, match=r"Round 2 \(train\) is void, and its receipt counts updates"):
        replace(whole, void={"train": WHY})
    with pytest.raises(FormatError, match=r"Round 2 \(evaluate\) is void"):
        replace(whole, void={"evaluate": WHY})
    for wrong in ({"test": WHY}, {"train": ""}, {"train": 7}, [], "train"):
        with pytest.raises(FormatError, match=r"void|is a text"):
            void(whole, void=wrong)


def test_a_changed_reason_shows(tmp_path: Path) -> None:
    first, second = last_void()
    forged = Sealed(replace(second.receipt, void={"train": "tours fell silent"}), second.signature)
    assert [finding.what for finding in check_chain(opening(), [first, forged])] == [
        "the signature is not the coordinator's"
    ]
