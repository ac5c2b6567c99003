"""The list of who may take part: one form, one signature, no way back."""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from koinon.errors import ConfigurationError, FormatError, ProtocolError
from koinon.fleet.wire.rosters import draft, shown
from koinon.privacy.secure_sum.roster import Roster

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def key(number: int, kind: str = "ed25519") -> str:
    raw = bytes([number]) * (32 if kind == "ed25519" else 65)
    return f"{kind}:{urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def verified(owner: Ed25519PrivateKey) -> Callable[[bytes, bytes], bool]:
    def verify(text: bytes, signature: bytes) -> bool:
        try:
            owner.public_key().verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return verify


def roster() -> Roster:
    return Roster(federation="heart study").add("paris", key(1)).add("Berlin Mitte", key(2, "p256"))


def test_a_roster_is_a_text_that_a_person_can_read() -> None:
    assert roster().text() == (
        "koinon roster 1\nfederation heart study\nserial 3\n"
        f"member {key(2, 'p256')} Berlin Mitte\nmember {key(1)} paris\n"
    )


def test_the_order_of_adding_does_not_show() -> None:
    other = Roster(federation="heart study").add("Berlin Mitte", key(2, "p256")).add("paris", key(1))
    assert other.digest() == roster().digest() != roster().add("rom", key(3)).digest()


names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=40).filter(
    lambda name: name == name.strip() and name.isprintable()
)


@given(st.dictionaries(names, st.integers(0, 255), max_size=6), names, st.integers(1, 2**40))
def test_a_signed_roster_comes_back(members: dict[str, int], federation: str, serial: int) -> None:
    own = {name: key(i, "p256" if number % 2 else "ed25519") for i, (name, number) in enumerate(members.items())}
    first = Roster(federation=federation, serial=serial, members=own)
    again = Roster.read(first.signed(OWNER.sign), verified(OWNER), after=serial - 1)
    assert (again.federation, again.serial, dict(again.members)) == (federation, serial, own)
    assert again.digest() == first.digest()


def test_a_roster_that_another_has_signed_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not that of the key you trust"):
        Roster.read(roster().signed(Ed25519PrivateKey.generate().sign), verified(OWNER))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"paris", b"parisx"),
        (b"serial 3", b"serial 4"),
        (b"AQEB", b"AgEB"),
        (b"heart", b"lung"),
        (b"member ", b"member  "),
    ],
)
def test_a_roster_that_was_edited_is_refused(old: bytes, new: bytes) -> None:
    raw = roster().signed(OWNER.sign)
    assert old in raw
    with pytest.raises(ProtocolError, match="not that of the key you trust"):
        Roster.read(raw.replace(old, new), verified(OWNER))


def test_an_old_roster_is_refused() -> None:
    """Or a member that was removed would come back."""
    old, new = roster(), roster().remove("paris")
    assert new.serial == 4
    assert set(new.members) == {"Berlin Mitte"}
    assert Roster.read(new.signed(OWNER.sign), verified(OWNER), after=old.serial) == new
    with pytest.raises(ProtocolError, match="Serial 4 of this roster is known, and this is 3"):
        Roster.read(old.signed(OWNER.sign), verified(OWNER), after=new.serial)


@pytest.mark.parametrize(
    "text",
    [
        "koinon roster 2\nfederation a\nserial 1\n",
        "koinon roster 1\nfederation a\n",
        "koinon roster 1\nfederation a\nserial one\n",
        "koinon roster 1\nfederation a\nserial 01\n",
        "koinon roster 1\nfederation a\nserial 0\n",
        "koinon roster 1\nfederation a\nserial 1\nmember x\n",
        f"koinon roster 1\nfederation a\nserial 1\nmember {key(1)} b\nmember {key(2)} a\n",
        f"koinon roster 1\nfederation a\nserial 1\nmember {key(1)} a\nmember {key(2)} a\n",
        f"koinon roster 1\nfederation a\nserial 1\nmember {key(1)} a\nmember {key(1)} b\n",
        f"koinon roster 1\nfederation a\nserial 1\nmember {key(1)}  a\n",
        f"koinon roster 1\nfederation a\nserial 1\nmember {key(1)[:-1]}F a\n",
        "koinon roster 1\r\nfederation a\r\nserial 1\r\n",
    ],
)
def test_a_text_of_another_form_is_no_roster_even_if_it_is_signed(text: str) -> None:
    """Two texts that say one thing would have two digests."""
    signature = urlsafe_b64encode(OWNER.sign(text.encode())).rstrip(b"=")
    with pytest.raises(FormatError, match="Do not edit|no roster"):
        Roster.read(text.encode() + b"signature " + signature + b"\n", verified(OWNER))


@pytest.mark.parametrize("raw", [b"", b"\n", b"signature x\n", roster().signed(OWNER.sign)[:-1], b"\xff" * 200 + b"\n"])
def test_what_is_no_signed_roster_is_an_error(raw: bytes) -> None:
    with pytest.raises(FormatError, match="no signed roster"):
        Roster.read(raw, verified(OWNER))


@pytest.mark.parametrize("name", ["", " a", "a\n", "a\nmember", "x" * 256, "\u2028"])
def test_a_name_is_one_line(name: str) -> None:
    with pytest.raises(ConfigurationError, match="one line"):
        roster().add(name, key(9))


def test_a_member_is_there_once_with_a_key_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="member already"):
        roster().add("paris", key(9))
    with pytest.raises(ConfigurationError, match="one key"):
        roster().add("rom", key(1))
    with pytest.raises(ConfigurationError, match="Members are: Berlin Mitte, paris"):
        roster().remove("rom")
    for wrong in ("ed25519:AAAA", key(1).removeprefix("ed25519:"), key(1) + "=", "rsa:" + "A" * 43):
        with pytest.raises(ConfigurationError, match="base64url"):
            roster().add("rom", wrong)


def test_a_coordinator_shows_no_roster_that_nobody_has_signed(tmp_path: Path) -> None:
    file, roster = tmp_path / "heart.roster", Roster(federation="heart", members={"lyon": key(1)})
    file.write_text(roster.text())
    assert draft(file) == roster
    with pytest.raises(FormatError, match="is not signed"):
        shown(file)
    file.write_bytes(roster.signed(OWNER.sign))
    assert shown(file) == roster
