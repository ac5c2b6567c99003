"""How often an address may call without a session."""

import pytest

from koinon.fleet.service.strangers import MOST_ADDRESSES, Strangers
from koinon.fleet.wire.refusal import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def admitted(strangers: Strangers, address: str | None, calls: int) -> int:
    """Return how many of so many calls are let through."""
    count = 0
    for _ in range(calls):
        try:
            strangers.admit(address)
            count += 1
        except Refusal as refusal:
            assert (refusal.status, refusal.code) == (429, "rate")
    return count


def test_so_many_at_once_and_so_many_a_second() -> None:
    clock = Clock()
    strangers = Strangers(clock, burst=5, per_second=2.0)
    assert admitted(strangers, "10.0.0.1", 8) == 5
    clock.now = 1.0
    assert admitted(strangers, "10.0.0.1", 8) == 2
    clock.now = 1000.0
    assert admitted(strangers, "10.0.0.1", 8) == 5, "no more is saved up than can be used at once"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("a socket's name", "10.0.0.1", False),
    ],
)
def test_who_shares_a_bucket(one: str, other: str, same: bool) -> None:
    strangers = Strangers(Clock(), burst=1, per_second=0.0)
    assert admitted(strangers, one, 1) == 1
    assert admitted(strangers, other, 1) == (0 if same else 1)


def test_no_address_is_one_address() -> None:
    assert admitted(Strangers(Clock(), burst=1, per_second=0.0), None, 2) == 1


def test_only_so_many_addresses_are_remembered() -> None:
    strangers = Strangers(Clock(), burst=1, per_second=0.0)
    for number in range(MOST_ADDRESSES):
        assert admitted(strangers, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1) == 1
    assert admitted(strangers, "10.0.0.0", 1) == 0, "the first is still known"
    assert admitted(strangers, "192.0.2.1", 1) == 1
    assert admitted(strangers, "10.0.0.1", 1) == 1, "who called longest ago is forgotten"
    assert admitted(strangers, "192.0.2.1", 1) == 0
