"""A coordinator's half of an encrypted sum: what it lets into the sum, and that it never makes a number up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from koinon.core.types import Purpose
from koinon.errors import FormatError
from koinon.fleet.coordinator.encrypted import EncryptedRound
from koinon.fleet.coordinator.key_holder import Silent, Terms
from koinon.fleet.coordinator.key_holders import KeyHolders, found
from koinon.fleet.coordinator.mailbox import Address, Letter, Mailbox
from koinon.fleet.coordinator.secure_sum import Office
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.keyholder.office import Office as Keys
from koinon.fleet.wire.encrypted_terms import ATTEMPTS
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import OwnKey, digest, encoded, signed_text
from koinon.privacy.encrypted_sum.ciphertexts import update_bytes
from koinon.privacy.encrypted_sum.client import encrypted
from koinon.privacy.encrypted_sum.holder import Answered, KeyHolder, Request
from koinon.privacy.encrypted_sum.pads import Round
from koinon.privacy.encrypted_sum.parameters import DEGREE, INTEGER_BITS, TURN_BITS, Parameters
from koinon.tree import Array

pytest.importorskip("tenseal", reason="needs koinon[he]")

PARTIES = {f"c-{i}": OwnKey(bytes([i]) * 32) for i in range(1, 5)}
PARAMETERS = Parameters(cohort=4, bound=1.0, largest_weight=8, scale=10, values=5)


class Waited(Exception):
    """Somebody was waited for once too often."""


class Part:
    """What a client has sent."""

    def __init__(self, round: Round, keys: Keys, client: str, signer: OwnKey | None = None) -> None:
        own, key = PARTIES[client], signer or PARTIES[client]
        self._sent = encrypted(round, [keys.public], own.public.text, (np.full(5, 0.5, np.float32), 2, ()), key.sign)

    def encrypted(self) -> tuple[memoryview, memoryview]:
        """Return its two parts."""
        return memoryview(self._sent.update), memoryview(self._sent.pads[0].to_bytes())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """A key holder."""
    return Keys.open(tmp_path_factory.mktemp("keys"), 3, None)


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    """The mailbox of a new coordinator."""
    with FleetStore.open(tmp_path, None) as store:
        yield Mailbox(store)


def begun(mailbox: Mailbox, keys: Keys, answer: Any, number: int = 1) -> EncryptedRound:
    """Return a round of the four parties, as a process that starts has it."""
    known = {client: key.public for client, key in PARTIES.items()}
    office = Office(mailbox, known, "r", number, Purpose.TRAIN, blinds=bytes(range(32)))

    def rounds(attempt: int) -> Round:
        at = number * ATTEMPTS + attempt
        return Round(run="r train", number=at, parameters=PARAMETERS, keys=(keys.public.fingerprint,))

    holder: Any = SimpleNamespace(sum=answer)
    return EncryptedRound(office, KeyHolders((holder,), (keys.public,)), rounds, 3)


def sent(round: EncryptedRound, keys: Keys) -> Any:
    """Return what everybody sends."""
    return [Part(round.round, keys, client) for client in PARTIES]


def never(what: str) -> None:
    raise Waited(what)


def test_the_sum_is_that_of_all(mailbox: Mailbox, keys: Keys) -> None:
    own = begun(mailbox, keys, lambda body, most: keys.answer(body), 1)
    found = own.decrypted(sent(own, keys), lambda: False, never)
    assert found is not None
    assert (found.weight, found.update.tolist()) == (8, [4096] * 5)


def test_an_update_of_another_round_or_client_is_refused(mailbox: Mailbox, keys: Keys) -> None:
    own, other = begun(mailbox, keys, None, 2), begun(mailbox, keys, None, 3)
    good: Any = Part(own.round, keys, "c-1")
    assert len(good.encrypted()[0]) == update_bytes(PARAMETERS)
    own.examine("c-1", good)
    late: Any = Part(other.round, keys, "c-1")
    with pytest.raises(FormatError, match="of another round"):
        own.examine("c-1", late)
    forged: Any = Part(own.round, keys, "c-1", PARTIES["c-2"])
    for client, part in (("c-2", good), ("c-1", forged)):
        with pytest.raises(FormatError, match="not signed by this client"):
            own.examine(client, part)


def test_a_key_holder_that_is_silent_or_says_something_else_is_waited_for(mailbox: Mailbox, keys: Keys) -> None:
    own = begun(mailbox, keys, None, 4)
    parts, tries = sent(own, keys), []

    def answer(body: bytes, most: int) -> bytes:
        tries.append(body)
        good = keys.answer(body)
        assert len(good) <= most
        if len(tries) == 1:
            raise Silent("nobody")
        if len(tries) == 2:
            return good[:-1]
        if len(tries) == 3:
            return good[: -8 * DEGREE] + bytes(8) + good[8 - 8 * DEGREE :]
        if len(tries) == 4:
            raise Refusal(503, "busy", "another")
        return good

    own._holders.holders[0].sum = answer  # type: ignore[assignment,method-assign]
    waited: list[str] = []
    assert own.decrypted(parts, lambda: False, waited.append) is not None
    assert len(waited) == 4
    assert len(set(tries)) == 1, "the same request each time"


def test_a_spoiled_round_begins_anew_also_after_a_restart(mailbox: Mailbox, keys: Keys) -> None:
    own = begun(mailbox, keys, lambda body, most: keys.answer(body), 5)
    good, spoiled = sent(own, keys), sent(own, keys)
    spoiled[0].encrypted = lambda: (good[1].encrypted()[0], good[0].encrypted()[1])
    assert own.decrypted(spoiled, lambda: False, never) is None
    own.begin_anew()
    again = begun(mailbox, keys, own._holders.holders[0].sum, 5)
    assert again.told == own.told == {"attempt": 1}
    assert again.round == own.round
    assert again.decrypted(sent(again, keys), lambda: False, never) is not None


def test_what_the_key_holder_refuses_waits_until_somebody_is_sent_away(mailbox: Mailbox, keys: Keys) -> None:
    own = begun(mailbox, keys, lambda body, most: keys.answer(body), 6)
    few = sent(own, keys)[:2]
    with pytest.raises(Waited, match="no crowd"):
        own.decrypted(few, lambda: False, never)
    assert own.decrypted(few, lambda: True, never) is None


def test_a_key_holder_that_is_busy_may_be_answering_so_nothing_begins_anew(mailbox: Mailbox, keys: Keys) -> None:
    tries: list[bytes] = []

    def answer(body: bytes, most: int) -> bytes:
        tries.append(body)
        if len(tries) == 1:
            raise Refusal(503, "busy", "another request is being answered")
        return keys.answer(body)

    own = begun(mailbox, keys, answer, 9)
    waited: list[str] = []
    assert own.decrypted(sent(own, keys), lambda: True, waited.append) is not None
    assert len(waited) == 1


def test_a_key_holder_that_keeps_what_it_refuses_learns_no_update(mailbox: Mailbox, keys: Keys) -> None:
    """A round is begun anew without a client that was sent away: of its two sums the difference would be that one's update."""
    seen: list[bytes] = []

    def answer(body: bytes, most: int) -> bytes:
        seen.append(body)
        if len(seen) == 1:
            raise Refusal(409, "refused", "not on my list")
        return keys.answer(body)

    own = begun(mailbox, keys, answer, 10)
    assert own.decrypted(sent(own, keys), lambda: True, never) is None
    own.begin_anew()
    found = own.decrypted(sent(own, keys)[:3], lambda: False, never)
    assert found is not None
    assert (found.weight, found.update.tolist()) == (6, [3 * 1024] * 5)
    first, second = (shown(keys, body) for body in seen)
    for words in (first, second, first - second):
        assert all(130 < chi_squared(words[:, 1:], shift) < 400 for shift in range(INTEGER_BITS - TURN_BITS, 56, 8))
    unit = np.uint64(1 << (INTEGER_BITS - PARAMETERS.plain_bits))
    assert np.rint((first - second)[:, 0] / unit) == [1], "how many there are is all that it is shown"


def shown(keys: Keys, body: bytes) -> Array:
    """Return all that a key holder makes of a request with its secrets, whether it answers or not: ``[ciphertexts, 4096]``."""
    asked = Request.from_bytes(body)
    return KeyHolder(secret=keys._secret, verify=keys._verify).share(asked, Answered(), lambda _: None).words


def chi_squared(words: Array, shift: int) -> float:
    """Return the statistic of eight bits: 255 degrees of freedom, so 130 and 400 each have a chance of less than 1e-7."""
    counts = np.bincount((words >> np.uint64(shift)).astype(np.uint8).reshape(-1), minlength=256)
    return float(((counts - words.size / 256) ** 2 / (words.size / 256)).sum())


def test_a_coordinator_that_starts_again_makes_the_same_request(mailbox: Mailbox, keys: Keys) -> None:
    """It was killed when it had asked: a key holder answers a number once, and the same request in the same way."""
    seen: list[bytes] = []

    def lost(body: bytes, most: int) -> bytes:
        seen.append(body)
        keys.answer(body)  # and the answer never arrives
        raise Silent("the key holder")

    own = begun(mailbox, keys, lost, 11)
    parts = sent(own, keys)
    with pytest.raises(Waited):
        own.decrypted(parts, lambda: False, never)
    again = begun(mailbox, keys, lambda body, most: seen.append(body) or keys.answer(body), 11)
    found = again.decrypted(parts, lambda: False, never)
    assert found is not None
    assert found.update.tolist() == [4096] * 5
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_no_client_can_begin_a_round_anew(mailbox: Mailbox, keys: Keys) -> None:
    key, at = PARTIES["c-1"], Address("r", 7, "train-1-encrypted")
    text = signed_text("message", at.run, at.round, at.stage, "c-1", "server", digest(b""))
    mailbox.post(at, "c-1", key.public, Letter("server", "", encoded(key.sign(text))))
    own = begun(mailbox, keys, None, 7)
    assert own.attempt == 0
    own.begin_anew()
    assert begun(mailbox, keys, None, 7).attempt == 1


def test_of_nobody_the_sum_is_nothing_and_nobody_is_asked(mailbox: Mailbox, keys: Keys) -> None:
    found = begun(mailbox, keys, None, 8).decrypted([], lambda: False, never)
    assert found is not None
    assert (found.weight, found.update.any()) == (0, False)


def test_another_key_or_another_roster_is_waited_for(keys: Keys) -> None:
    said: list[str] = []
    right = keys.public.fingerprint.hex()
    asked: Any = SimpleNamespace(forget=lambda: said.append("forgotten"))
    for pinned, theirs, ours in (("ab" * 32, None, None), (right, None, "cd" * 32), (right, "ef" * 32, "cd" * 32)):
        asked.terms = lambda theirs=theirs: Terms(keys.public, theirs)
        assert found([asked], [pinned], ours, said.append) is None
    assert [line[:20] for line in said[1::2]] == ["the key holder of th", *["a key holder that go"] * 2]
    for theirs, ours in ((None, None), ("cd" * 32, "cd" * 32), ("cd" * 32, None)):
        asked.terms = lambda theirs=theirs: Terms(keys.public, theirs)
        assert found([asked], [right], ours, said.append) == KeyHolders((asked,), (keys.public,))
