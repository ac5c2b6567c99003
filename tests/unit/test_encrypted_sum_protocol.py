"""A key holder decrypts the sum that a request names, once a round, and nothing that is not that sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tenseal")
pytest.importorskip("zstandard")

import encrypted_sum_samples as samples
from encrypted_sum_samples import CLIENTS, PARAMETERS, Kept

from koinon.errors import ClientError, ConfigurationError, FleetError, FormatError, StoreError, UnsupportedError
from koinon.privacy.encrypted_sum import ciphertexts, lattice
from koinon.privacy.encrypted_sum.ciphertexts import EncryptedSum, packed, polynomials
from koinon.privacy.encrypted_sum.client import encrypted
from koinon.privacy.encrypted_sum.holder import Answered, Request
from koinon.privacy.encrypted_sum.keys import PublicKey, SecretKey
from koinon.privacy.encrypted_sum.pads import Pad, SealedPad
from koinon.privacy.encrypted_sum.parameters import DEGREE, INTEGER_BITS, MODULUS, Parameters
from koinon.privacy.encrypted_sum.shares import Count, Share, check_count, together
from koinon.privacy.encrypted_sum.trust import statement
from koinon.tree import Array


def _answer(request: Request, answered: Answered | None = None) -> Array:
    return samples.answer(request, answered).values


def test_the_sum_is_exact() -> None:
    totals = samples.answer(samples.request())
    assert np.array_equal(totals.values, sum(map(samples.whole, CLIENTS)))
    assert totals.weight == sum(samples.WEIGHTS[client] for client in CLIENTS)
    assert totals.figures.tolist() == [4.5, -750.75]
    assert totals.clients == 3


@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1)])
@pytest.mark.parametrize(("cohort", "fields"), [(10, 2), (10, 3), (25, 1)])
def test_a_whole_cohort_at_the_extreme_of_every_field_is_decrypted_exactly(
    signs: tuple[int, int], cohort: int, fields: int
) -> None:
    found = Parameters.fitting(cohort=cohort, bound=1.0, largest_weight=7, values=4000, fields=fields)
    key, names = samples.secret_key(), [f"client {index}" for index in range(cohort)]
    this_round = replace(samples.the_round(), parameters=found)
    extreme = np.resize(np.array(signs, np.float32), found.values)
    total, pads = EncryptedSum(this_round), []
    for name in names:
        sent = encrypted(this_round, [key.public], name, (extreme, 7, ()), samples.signer(name))
        total.add(sent.update)
        pads.append(sent.pads[0])
    open_to_all = replace(samples.holder(), verify=lambda *_: True)
    blinded = total.blinded(samples.SECRET)
    share = open_to_all.share(Request(this_round, tuple(pads), blinded.total), Answered(), Kept([]))
    totals = together(this_round, cohort, blinded.share, [share])
    assert np.array_equal(totals.values, extreme.astype(np.int64) * found.limit * cohort)
    assert totals.weight == 7 * cohort


def test_partial_sums_merge() -> None:
    left, right = samples.total_of("amiens"), samples.total_of("brest", "caen")
    left.merge(right)
    assert left.to_bytes() == samples.total_of(*CLIENTS).to_bytes()
    with pytest.raises(FleetError):
        left.merge(samples.total_of("dijon", number=8))
    with pytest.raises(FleetError):
        left.merge(right)  # five clients, of a cohort of four


def test_addition_is_seals() -> None:
    """The coordinator adds with numpy; SEAL's own addition of the same two gives the same words."""
    with lattice.opened(PARAMETERS.plain_bits) as seal:
        api, context = seal._seal, seal._context
        encrypt = seal.encryptor(samples.secret_key().public.lattice)
        words = [encrypt(np.full(DEGREE, value, np.uint64)) for value in (3, 4)]
        front = seal._front(_some_ciphertext(api, seal), 2 * DEGREE * 8)
        both = [api.Ciphertext(), api.Ciphertext()]
        for one, own in zip(both, words, strict=True):
            seal._load(one, front, own.data)
        api.Evaluator(context).add_inplace(*both)
        assert np.array_equal(seal._words(both[0], 2 * DEGREE).reshape(2, -1), ciphertexts.reduced(words[0] + words[1]))


def test_an_update_is_never_encrypted_alike() -> None:
    own = (samples.update("caen"), 1, (0.0, 0.0))
    first, second = (
        encrypted(samples.the_round(), [samples.secret_key().public], "caen", own, samples.signer("caen")) for _ in "12"
    )
    assert first.update != second.update
    assert first.pads[0].sealed != second.pads[0].sealed


# What a malicious coordinator may hand the key holder.


def _outsiders(count: int) -> EncryptedSum:
    """Return encryptions of zeros that count as ``count`` clients: the public key is public."""
    total = EncryptedSum(samples.the_round())
    cells = np.zeros(DEGREE, np.uint64)
    cells[0] = count
    with lattice.opened(PARAMETERS.plain_bits) as seal:
        encrypt = seal.encryptor(samples.secret_key().public.lattice)
        total._total[:] = [encrypt(cells) for _ in range(PARAMETERS.ciphertexts)]
    return total


def _alone() -> EncryptedSum:
    return samples.total_of("amiens")


def _alone_with_the_others_count() -> EncryptedSum:
    total = _alone()
    total.merge(_outsiders(2))
    return total


def _twice() -> EncryptedSum:
    total = samples.total_of("amiens", "brest")
    total.add(samples.sent_by("brest").update)
    return total


def _scaled() -> EncryptedSum:
    total = samples.total_of(*CLIENTS)
    total._total[:] = ciphertexts.reduced(2 * total._total)
    return total


def _masked() -> EncryptedSum:
    """Return the sum and, on top of it, one client's again, multiplied by X**5: a plaintext mask."""
    total, alone = samples.total_of(*CLIENTS), _alone()
    turned = np.roll(alone._total, 5, axis=-1)
    turned[..., :5] = (np.uint64(MODULUS) - turned[..., :5]) % np.uint64(MODULUS)
    total._total[:] = ciphertexts.reduced(total._total + turned)
    return total


def _one_part_alone() -> EncryptedSum:
    """Return the sum, but in one ciphertext of several a single client."""
    total = samples.total_of(*CLIENTS)
    total._total[-1] = _alone()._total[-1]
    return total


def _the_key_itself() -> EncryptedSum:
    """Return ``(0, q / t)``, which decrypts to the secret key."""
    total = EncryptedSum(samples.the_round())
    total._total[:, 1, 0] = MODULUS >> PARAMETERS.plain_bits
    return total


def _nothing() -> EncryptedSum:
    return EncryptedSum(samples.the_round())


@pytest.mark.parametrize(
    "handed",
    [
        _alone,
        _alone_with_the_others_count,
        _twice,
        _scaled,
        _masked,
        _one_part_alone,
        _the_key_itself,
        _nothing,
        lambda: _outsiders(3),
    ],
)
def test_what_is_not_the_sum_is_an_error_and_no_number(handed: Callable[[], EncryptedSum]) -> None:
    with pytest.raises(FleetError, match="is not the sum of these 3 clients"):
        _answer(samples.request(total=handed().to_bytes()))


@pytest.mark.parametrize("handed", [_alone, _alone_with_the_others_count, _scaled, _the_key_itself])
def test_what_is_left_of_what_is_not_the_sum_is_uniform(handed: Callable[[], EncryptedSum]) -> None:
    """Even before the holder refuses it: the pads that did not cancel hide what a coordinator hoped to see."""
    left = _seen(samples.request(total=handed().to_bytes()))
    assert all(130 < _chi_squared(left, shift) < 400 for shift in PLAINTEXT)


PLAINTEXT = (INTEGER_BITS - PARAMETERS.plain_bits, 48, 56)
"""Where in a share's words, of 64 bits, bytes of a plaintext are: below them is noise."""


def _seen(request: Request) -> Array:
    """Return all that a key holder finds in the first ciphertext, whether it answers or not."""
    pads = [pad.opened(request.round, samples.secret_key()) for pad in request.pads]
    return samples.holder()._decrypted(PARAMETERS, ciphertexts.summed(request.total, request.round), pads)[0]


def _chi_squared(cells: Array, shift: int = 0) -> float:
    """Return the statistic of eight bits: 255 degrees of freedom, so 130 and 400 each have a chance of less than 1e-7."""
    counts = np.bincount((cells >> np.uint64(shift)).astype(np.uint8), minlength=256)
    return float(((counts - DEGREE / 256) ** 2 / (DEGREE / 256)).sum())


def test_pads_of_others_do_not_come_off() -> None:
    """Four sent, and the request names three of them: the fourth's pad hides the sum."""
    body = samples.total_of(*CLIENTS, "dijon").to_bytes()
    with pytest.raises(FleetError, match="is not the sum"):
        _answer(samples.request(total=body))


# What it refuses before it decrypts.


def test_fewer_than_the_floor_are_refused() -> None:
    with pytest.raises(FleetError, match="2 clients are no crowd"):
        _answer(samples.request(named=("amiens", "brest")))


def test_a_client_named_twice_is_refused() -> None:
    with pytest.raises(FleetError, match="2 of them different"):
        _answer(samples.request(named=("amiens", "brest", "brest")))


def test_more_than_the_cohort_are_refused() -> None:
    asked = samples.request(total=_nothing().to_bytes())
    five = tuple(replace(asked.pads[0], client=f"client {index}") for index in range(5))
    with pytest.raises(FleetError, match="cohort of 4"):
        _answer(replace(asked, pads=five))


def test_strangers_and_changed_pads_are_refused() -> None:
    asked = samples.request()
    own = asked.pads[0]
    for changed in (
        replace(own, client="eve"),
        replace(own, client="dijon"),
        replace(own, signature=bytes(64)),
        replace(own, sealed=bytes(80)),
        samples.sent_by("amiens", 8).pads[0],
    ):
        with pytest.raises(FleetError, match="has not signed this round"):
            _answer(replace(asked, pads=(changed, *asked.pads[1:])))


def test_a_signed_pad_that_does_not_open_is_refused() -> None:
    asked, text = samples.request(), samples.the_round().text(b"signed", "amiens", bytes(80))
    forged = SealedPad("amiens", bytes(80), samples.signer("amiens")(text))
    with pytest.raises(FleetError, match="does not open"):
        _answer(replace(asked, pads=(forged, *asked.pads[1:])))


def test_a_pad_of_another_client_does_not_open() -> None:
    """Who signs another's seal as his own, to have its pad taken off twice, is refused."""
    asked = samples.request()
    stolen = asked.pads[0].sealed
    own = SealedPad("brest", stolen, samples.signer("brest")(samples.the_round().text(b"signed", "brest", stolen)))
    with pytest.raises(FleetError, match="does not open"):
        _answer(replace(asked, pads=(asked.pads[0], own, asked.pads[2])))


@pytest.mark.parametrize("field", ["run", "number", "parameters"])
def test_another_round_than_the_signed_one_is_refused(field: str) -> None:
    other = {"run": "lungs", "number": 9, "parameters": replace(PARAMETERS, cohort=5)}[field]
    asked = samples.request()
    with pytest.raises(FleetError, match="has not signed this round"):
        _answer(replace(asked, round=replace(asked.round, **{field: other})))


def test_a_round_is_another_one_with_another_anything() -> None:
    """All of it is in its digest, which is what clients sign."""
    own = samples.the_round()
    others = [
        replace(own, run="lungs"),
        replace(own, number=8),
        replace(own, parameters=replace(PARAMETERS, scale=PARAMETERS.scale - 1)),
        replace(own, keys=(samples.secret_key(1).public.fingerprint,)),
        replace(own, keys=(*own.keys, samples.secret_key(1).public.fingerprint)),
    ]
    assert len({found.digest for found in (own, *others)}) == 6


def test_a_pad_is_another_one_in_each_ciphertext() -> None:
    pad, other = Pad.fresh(), Pad.fresh()
    first, second = pad.plaintexts(), other.plaintexts()
    drawn = np.concatenate([next(first), next(first), next(second)]) & np.uint64(2**40 - 1)
    assert len(np.unique(drawn)) > 3 * DEGREE - 4  # two of 12,288 are hardly ever equal
    assert np.array_equal(next(pad.plaintexts()) & np.uint64(2**40 - 1), drawn[:DEGREE])


def test_a_request_for_another_key_is_refused() -> None:
    with pytest.raises(FleetError, match="for other keys"):
        samples.answer(samples.request(), by=samples.holder(1))


def test_a_wrong_secret_is_an_error_and_no_number() -> None:
    mixed = replace(samples.secret_key(), lattice=samples.secret_key(1).lattice)
    with pytest.raises(FleetError, match="is not the sum"):
        samples.answer(samples.request(), by=replace(samples.holder(), secret=mixed))


def test_a_sum_of_another_round_is_refused() -> None:
    body = samples.total_of(*CLIENTS, number=8).to_bytes()
    with pytest.raises(FormatError, match="not of round 7"):
        _answer(samples.request(total=body))


# Once a round, and written down first.


def test_nothing_is_decrypted_before_it_is_written_down() -> None:
    def full(answered: Answered) -> None:
        raise StoreError("the disk is full")

    def never(*_: object) -> None:
        raise AssertionError("decrypted")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lattice, "opened", never)
        with pytest.raises(StoreError, match="full"):
            samples.answer(samples.request(), keep=full)


def test_a_round_has_one_request_and_its_answer_again() -> None:
    kept = Kept([])
    samples.answer(samples.request(), keep=kept)
    restarted = Answered.from_bytes(kept.states[-1])
    assert np.array_equal(_answer(samples.request(), restarted), sum(map(samples.whole, CLIENTS)))
    with pytest.raises(FleetError, match="a round has one sum only"):
        _answer(samples.request(named=("amiens", "brest", "dijon")), restarted)
    with pytest.raises(FleetError, match="a round has one sum only"):
        _answer(samples.request(number=6), restarted)
    assert np.array_equal(_answer(samples.request(number=8), restarted), sum(map(samples.whole, CLIENTS)))


def test_a_round_whose_sum_was_wrong_is_over() -> None:
    kept = Kept([])
    with pytest.raises(FleetError, match="is not the sum"):
        samples.answer(samples.request(total=_alone().to_bytes()), keep=kept)
    with pytest.raises(FleetError, match="a round has one sum only"):
        _answer(samples.request(), Answered.from_bytes(kept.states[-1]))


def test_a_refused_request_does_not_end_a_round() -> None:
    kept = Kept([])
    with pytest.raises(FleetError, match="no crowd"):
        samples.answer(samples.request(named=("amiens", "brest")), keep=kept)
    assert kept.states == []


def test_runs_do_not_end_each_others_rounds() -> None:
    answered = Answered({"lungs": (90, "")})
    kept = Kept([])
    samples.answer(samples.request(), answered, kept)
    assert set(Answered.from_bytes(kept.states[-1]).rounds) == {"hearts", "lungs"}


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[]", b'{"format":2,"rounds":{}}', b'{"format":1,"rounds":{"a":1}}'])
def test_a_damaged_memory_is_an_error(damaged: bytes) -> None:
    with pytest.raises(StoreError, match="make a new key"):
        Answered.from_bytes(damaged)


# Several key holders.

TOGETHER = (0, 1, 2)


def _shares(holders: tuple[int, ...]) -> list[Share]:
    return [
        samples.holder(which).share(samples.shared_request(place, holders), Answered(), Kept([]))
        for place, which in enumerate(holders)
    ]


def _own(holders: tuple[int, ...]) -> Share:
    return samples.blinded(*CLIENTS, holders=holders).share


def test_several_holders_share_a_sum() -> None:
    totals = together(samples.the_round(7, TOGETHER), 3, _own(TOGETHER), _shares(TOGETHER))
    assert np.array_equal(totals.values, sum(map(samples.whole, CLIENTS)))
    assert totals.weight == 84


def test_without_one_of_the_holders_there_is_no_number() -> None:
    asked, own, shares = samples.the_round(7, TOGETHER), _own(TOGETHER), _shares(TOGETHER)
    for place in range(3):
        some = [share for index, share in enumerate(shares) if index != place]
        with pytest.raises(FleetError, match="2 answered"):
            together(asked, 3, own, some)
        with pytest.raises(FleetError, match="is not the sum"):
            together(asked, 3, own, [*some, Share(np.zeros_like(shares[0].words))])
        with pytest.raises(FleetError, match="is not the sum"):
            together(asked, 3, own, [*some, some[0]])
        left = sum((share.words for share in some), own.words)
        assert all(130 < _chi_squared(left[0], shift) < 400 for shift in PLAINTEXT)


def test_requests_for_different_clients_leave_noise() -> None:
    """A coordinator that names other clients to each of the holders: the pads of neither crowd cancel."""
    whole, own, (first, second, third) = samples.the_round(7, TOGETHER), _own(TOGETHER), _shares(TOGETHER)
    other = samples.shared_request(2, TOGETHER, ("amiens", "brest", "dijon"))
    wrong = samples.holder(2).share(other, Answered(), Kept([]))
    with pytest.raises(FleetError, match="is not the sum"):
        together(whole, 3, own, [first, second, wrong])
    left = (own.words + first.words + second.words + wrong.words)[0]
    assert all(130 < _chi_squared(left, shift) < 400 for shift in PLAINTEXT)
    assert together(whole, 3, own, [first, second, third]).weight == 84


def test_a_count_says_how_many_and_nothing_else() -> None:
    asked, shares = samples.the_round(7, TOGETHER), _shares(TOGETHER)
    counts = [Count.from_bytes(share.count.to_bytes(), PARAMETERS) for share in shares]
    check_count(asked, 3, counts)
    for clients, found in ((2, counts), (3, [*counts[:2], counts[0]])):
        with pytest.raises(FleetError, match=f"is not the sum of these {clients} clients"):
            check_count(asked, clients, found)
    assert counts[0].words.shape == (PARAMETERS.ciphertexts,), "one word of 4096, whose pads hide a 1"


def test_shares_come_back_from_their_bytes() -> None:
    share = Share(np.arange(PARAMETERS.ciphertexts * DEGREE, dtype=np.uint64).reshape(-1, DEGREE))
    assert np.array_equal(Share.from_bytes(share.to_bytes(), PARAMETERS).words, share.words)
    for wrong in (b"", share.to_bytes()[:-8], share.to_bytes() + bytes(8), share.count.to_bytes()):
        with pytest.raises(FormatError):
            Share.from_bytes(wrong, PARAMETERS)
    for wrong in (b"", share.count.to_bytes()[:-1], share.to_bytes()):
        with pytest.raises(FormatError):
            Count.from_bytes(wrong, PARAMETERS)


def test_each_of_several_holders_has_a_floor_and_a_memory() -> None:
    keeper, kept = samples.holder(1), Kept([])
    with pytest.raises(FleetError, match="no crowd"):
        keeper.share(samples.shared_request(1, TOGETHER, ("amiens", "brest")), Answered(), kept)
    keeper.share(samples.shared_request(1, TOGETHER), Answered(), kept)
    with pytest.raises(FleetError, match="one sum only"):
        other = samples.shared_request(1, TOGETHER, ("amiens", "brest", "dijon"))
        keeper.share(other, Answered.from_bytes(kept.states[-1]), kept)
    with pytest.raises(FleetError, match="does not open"):
        keeper.share(samples.shared_request(2, TOGETHER), Answered(), kept)


def test_the_first_holder_alone_gets_the_sum_of_ciphertexts() -> None:
    holders = (2, 0)
    asked = [samples.shared_request(place, holders) for place in range(2)]
    assert [bool(request.total) for request in asked] == [True, False]
    shares = [samples.holder(which).share(asked[place], Answered(), Kept([])) for place, which in enumerate(holders)]
    assert together(samples.the_round(7, holders), 3, _own(holders), shares).weight == 84


def test_a_holder_is_there_once() -> None:
    own = samples.secret_key().public.fingerprint
    for keys in ((), (own, own), (own[:-1],), tuple(bytes([n]) * 32 for n in range(17))):
        with pytest.raises(ConfigurationError, match="different key holders"):
            replace(samples.the_round(), keys=keys)


# The client.


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ((np.full(10_000, np.nan, np.float32), 1, (0.0, 0.0)), "not finite"),
        ((np.full(10_000, np.inf, np.float32), 1, (0.0, 0.0)), "not finite"),
        ((np.full(10_000, 1.01, np.float32), 50, (0.0, 0.0)), "above 1"),
        ((np.zeros(10_000, np.float32), 51, (0.0, 0.0)), "its weight is no whole number up to 50"),
        ((np.zeros(10_000, np.float32), -1, (0.0, 0.0)), "its weight is no whole number"),
        ((np.zeros(9_999, np.float32), 1, (0.0, 0.0)), "9999 numbers"),
        ((np.zeros(10_000, np.float32), 1, (0.0,)), "1 figures"),
        ((np.zeros(10_000, np.float32), 1, (0.0, float("nan"))), "metric sum"),
        ((np.zeros(10_000, np.float32), 1, (1e30, 0.0)), "metric sum"),
    ],
)
def test_a_client_refuses_what_does_not_fit(numbers: tuple[Array, int, tuple[float, ...]], why: str) -> None:
    with pytest.raises(ClientError, match=why) as refused:
        encrypted(samples.the_round(), [samples.secret_key().public], "caen", numbers, samples.signer("caen"))
    assert refused.value.client == "caen"


def test_a_client_does_not_encrypt_for_another_key() -> None:
    own = (samples.update("caen"), 1, (0.0, 0.0))
    with pytest.raises(FleetError, match="Ask the key holder"):
        encrypted(samples.the_round(), [samples.secret_key(1).public], "caen", own, samples.signer("caen"))


def test_a_key_of_low_order_is_refused() -> None:
    public = replace(samples.secret_key().public, envelope=bytes(32))
    with pytest.raises(FormatError, match="no key"):
        Pad.fresh().sealed(samples.the_round(), "caen", public, samples.signer("caen"))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(UnsupportedError, match=r"koinon\[he\]"):
        SecretKey.generate(3)


def test_a_coordinator_needs_no_seal() -> None:
    """Nothing that it imports imports the library, and it adds without it."""
    import subprocess
    import sys

    code = "import sys, koinon.privacy.encrypted_sum.ciphertexts; sys.exit('tenseal' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# Keys and what is printed.


def test_keys_come_back_from_their_bytes() -> None:
    own = samples.secret_key()
    again = SecretKey.from_bytes(own.to_bytes())
    assert again.public.fingerprint == own.public.fingerprint
    assert again == own
    assert own.envelope.hex() not in repr(own)


def test_a_fingerprint_covers_the_floor() -> None:
    public = samples.secret_key().public
    assert replace(public, floor=4).fingerprint != public.fingerprint
    raw = public.to_bytes()
    with pytest.raises(FormatError, match="single updates"):
        PublicKey.from_bytes(raw.replace(b"\x03\0\0\0", b"\x01\0\0\0", 1))


@pytest.mark.parametrize("floor", [1, 0, -3, 2.0])
def test_a_floor_of_one_is_no_floor(floor: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 2 clients"):
        SecretKey.generate(floor)


def test_secrets_of_two_keys_do_not_mix() -> None:
    with pytest.raises(FormatError, match="does not belong"):
        SecretKey.from_bytes(replace(samples.secret_key(), public=samples.secret_key(1).public).to_bytes())


def test_the_statement_says_who_is_trusted() -> None:
    signed, unsigned = statement(3, signed_list=True), statement(3, signed_list=False)
    assert "whatever it does" in signed[0]
    assert "honest but curious" in unsigned[0]
    assert any("Coordinator and key holder together learn" in line for line in signed)
    assert any("all 3 key holders together learn" in line for line in statement(3, signed_list=True, holders=3))


def _some_ciphertext(api: object, seal: lattice.Lattice) -> object:
    found = api.Ciphertext()  # type: ignore[attr-defined]
    api.Encryptor(seal._context, seal._own_public()).encrypt_zero(found)  # type: ignore[attr-defined]
    return found


def test_planes_of_a_sum_are_whole() -> None:
    words = samples.total_of("brest")._total[0]
    sent = b"".join(packed(own, 0) for own in words)
    assert np.array_equal(polynomials(memoryview(sent)), words)
