"""Invitations, challenges and sessions in the hands of somebody who is not whom they were for."""

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import bare
import pytest

from koinon.errors import FormatError
from koinon.fleet.coordinator.access import SESSION_SECONDS, Access
from koinon.fleet.coordinator.store import DATABASE, FleetStore
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import Kind, PublicKey, digest, encoded, signed_text

KINDS = ("ed25519", "p256")


class Clock:
    """Seconds as the test wants them."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FleetStore]:
    with FleetStore.open(tmp_path) as store:
        yield store


@pytest.fixture
def access(store: FleetStore, clock: Clock) -> Access:
    return Access(store, clock)


def enrolled(access: Access, name: str = "lyon", kind: str = "ed25519", token: str | None = None) -> bare.Party:
    """Return a party that has enrolled."""
    party = bare.Party("", name, bare.Key(kind))
    token = token or access.invite(None, 1)
    signed = bare.text("koinon/1 enrol", digest(token.encode()), name, encoded(party.key.public))
    key = PublicKey(Kind(kind), party.key.public)
    party.client = access.enrol(token, name, key, party.key.sign(signed)).client
    return party


def begun(access: Access, party: bare.Party, challenge: str | None = None) -> str:
    """Return the token of a new session."""
    challenge = access.challenge(party.client) if challenge is None else challenge
    return access.session(
        party.client, challenge, party.key.sign(signed_text("session", party.client, challenge))
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_challenge_is_valid_once_for_its_client_and_a_minute(access: Access, clock: Clock, kind: str) -> None:
    party, other = enrolled(access, "lyon", kind), enrolled(access, "nice", kind)
    challenge = access.challenge(party.client)
    token = begun(access, party, challenge)
    with pytest.raises(Refusal, match="was used"):
        begun(access, party, challenge)
    assert access.who(token).client == party.client
    with pytest.raises(Refusal, match="not this client's"):
        begun(access, other, access.challenge(party.client))
    late = access.challenge(party.client)
    clock.now += 60.01
    with pytest.raises(Refusal, match="too old"):
        begun(access, party, late)


def test_a_challenge_that_was_made_up_or_changed_is_refused(access: Access) -> None:
    party = enrolled(access)
    good = access.challenge(party.client)
    later = f"9{good}"
    for made_up in ("", ".", "x", "é", f"{good}0", later, good.upper(), good.rpartition(".")[0], "nan_." + "0" * 64):
        with pytest.raises(Refusal) as refused:
            begun(access, party, made_up)
        assert refused.value.code == "challenge"
    begun(access, party, good)


def test_a_challenge_of_an_earlier_process_is_refused(store: FleetStore, clock: Clock) -> None:
    party = enrolled(before := Access(store, clock))
    challenge = before.challenge(party.client)
    with pytest.raises(Refusal, match="Ask anew"):
        begun(Access(store, clock), party, challenge)


def test_strangers_asking_for_challenges_take_no_memory_and_lock_nobody_out(access: Access) -> None:
    party = enrolled(access)
    tracemalloc.start()
    for i in range(20_000):
        access.challenge(f"c-{i}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000
    begun(access, party)


def test_a_session_ends_after_its_time(access: Access, clock: Clock) -> None:
    token = begun(access, enrolled(access))
    clock.now += SESSION_SECONDS - 0.01
    access.who(token)
    clock.now += 0.02
    with pytest.raises(Refusal) as refused:
        access.who(token)
    assert (refused.value.status, refused.value.code) == (401, "session")


def test_a_revoked_client_has_no_session_and_gets_none(access: Access) -> None:
    party = enrolled(access)
    token = begun(access, party)
    challenge = access.challenge(party.client)
    access.revoke(party.client)
    with pytest.raises(Refusal) as refused:
        access.who(token)
    assert refused.value.status == 401
    with pytest.raises(Refusal, match="revoked"):
        begun(access, party, challenge)


def test_a_revoked_client_stays_revoked_after_a_restart(access: Access, store: FleetStore, clock: Clock) -> None:
    party = enrolled(access)
    access.revoke(party.client)
    with pytest.raises(Refusal, match="revoked"):
        begun(Access(store, clock), party)


def test_an_invitation_works_once(access: Access) -> None:
    token = access.invite(None, 1)
    party = enrolled(access, "lyon", token=token)
    for name in ("lyon", "nice"):  # another key under the same name, another name
        with pytest.raises(Refusal, match="was used") as refused:
            enrolled(access, name, token=token)
        assert refused.value.status == 403
    access.revoke(party.client)
    with pytest.raises(Refusal, match="was used"):
        again = signed_text("enrol", digest(token.encode()), "lyon", encoded(party.key.public))
        access.enrol(token, "lyon", PublicKey(Kind.ED25519, party.key.public), party.key.sign(again))


def test_an_invitation_for_one_name_is_of_no_use_to_another(access: Access) -> None:
    token = access.invite("lyon", 1)
    with pytest.raises(Refusal, match="for 'lyon'"):
        enrolled(access, "nice", token=token)
    enrolled(access, "lyon", token=token)


def test_an_expired_invitation_is_refused(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    token, now = access.invite(None, 1), time.time()
    assert access.invited(token)
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    assert not access.invited(token) and access.invitations_open() == 0
    with pytest.raises(Refusal, match="expired"):
        enrolled(access, token=token)


@pytest.mark.parametrize("kind", KINDS)
def test_an_enrolment_is_signed_by_the_key_it_brings(access: Access, kind: str) -> None:
    token = access.invite(None, 1)
    mine, other = bare.Key(kind), bare.Key(kind)
    key = PublicKey(Kind(kind), mine.public)
    good = signed_text("enrol", digest(token.encode()), "lyon", encoded(mine.public))
    for signature in (other.sign(good), mine.sign(good + b"\n"), b"", bytes(64), mine.sign(good)[:63]):
        with pytest.raises(Refusal, match="not signed"):
            access.enrol(token, "lyon", key, signature)
    access.enrol(token, "lyon", key, mine.sign(good))


FIELD = 2**255 - 19
ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7  # y of a point of order 8
SMALL_ORDER = [0, 1, FIELD - 1, FIELD, FIELD + 1, ORDER_8, FIELD - ORDER_8]


@pytest.mark.parametrize("y", SMALL_ORDER)
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_a_key_under_which_anybody_can_sign_is_refused(y: int, sign: int) -> None:
    with pytest.raises(FormatError, match="no ed25519 public key"):
        PublicKey(Kind.ED25519, (y | sign).to_bytes(32, "little"))


def test_every_key_that_is_made_is_taken() -> None:
    for _ in range(100):
        PublicKey(Kind.ED25519, bare.Key("ed25519").public)


@pytest.mark.parametrize("name", ["", "a" * 65, "a/b", "..\n", "a\n", "é", "a b", "<b>", "\x1b[2J"])
def test_a_name_that_could_do_harm_is_refused(access: Access, name: str) -> None:
    with pytest.raises(Refusal, match="A name has"):
        enrolled(access, name)


def test_neither_tokens_nor_sessions_are_in_the_store(access: Access, store: FleetStore, tmp_path: Path) -> None:
    unused, used = access.invite(None, 1), access.invite(None, 1)
    party = enrolled(access, token=used)
    session, challenge = begun(access, party), access.challenge(party.client)
    store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert digest(unused.encode()).encode() in kept, "this looks into the right files"
    for secret in (unused, used, session, challenge):
        assert secret.encode() not in kept


def test_the_store_is_closed_to_other_users_of_the_machine(access: Access, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with FleetStore.open(folder):
        assert folder.stat().st_mode & 0o077 == 0
        assert (folder / DATABASE).exists()
