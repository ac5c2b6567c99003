"""All the key holders of an app: found by their keys, whichever link leads to which, and asked for one sum together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from koinon.errors import FleetError, FormatError
from koinon.fleet.coordinator.key_holder import KeyHolder, Silent, Terms
from koinon.fleet.wire.refusal import Refusal
from koinon.privacy.encrypted_sum.ciphertexts import Blinded
from koinon.privacy.encrypted_sum.holder import Request
from koinon.privacy.encrypted_sum.keys import PublicKey
from koinon.privacy.encrypted_sum.packing import Totals
from koinon.privacy.encrypted_sum.pads import Round, SealedPad
from koinon.privacy.encrypted_sum.parameters import DEGREE
from koinon.privacy.encrypted_sum.shares import Count, Share, check_count, together

_HEAD_BYTES = 1 << 10
_WORD = 8
Answered = TypeVar("Answered")


@dataclass(frozen=True)
class KeyHolders:
    """The key holders of an app, in the app's order, and their public keys."""

    holders: tuple[KeyHolder, ...]
    keys: tuple[PublicKey, ...]

    def total(self, round: Round, pads: Sequence[Sequence[SealedPad]], blinded: Blinded) -> Totals:
        """Return the totals of clients' ``pads``, one for each holder, and the blinded sum of their ciphertexts.

        A single holder counts before it answers. Of several (experimental) each is asked for its share only when all have
        agreed to answer, and what they count is right: before that nothing is let out, and the round may be begun anew.
        Raises Silent, FormatError, and Refusal, after which it may be; ``spoiled`` where this is no sum.
        """
        own = [tuple(pad[place] for pad in pads) for place in range(len(self.keys))]
        asked = [Request(round, part, b"" if place else blinded.total).to_bytes() for place, part in enumerate(own)]
        promised = len(asked) > 1
        if promised:
            self._count(round, len(pads), asked)
        most = _HEAD_BYTES + _WORD * DEGREE * round.parameters.ciphertexts
        try:
            shares = self._each(asked, lambda holder, body: Share.from_bytes(holder.sum(body, most), round.parameters))
        except Refusal as error:
            if promised:
                raise Silent(f"a share that was promised: {error}") from error
            raise
        try:
            return together(round, len(pads), blinded.share, shares)
        except FleetError as error:
            raise FormatError(str(error)) from error

    def _count(self, round: Round, clients: int, asked: Sequence[bytes]) -> None:
        counts = self._each(asked, lambda holder, body: Count.from_bytes(holder.count(body), round.parameters))
        try:
            check_count(round, clients, counts)
        except FleetError as error:
            raise Refusal(409, "spoiled", str(error)) from error

    def _each(self, asked: Sequence[bytes], ask: Callable[[KeyHolder, bytes], Answered]) -> list[Answered]:
        """Return every holder's answer. A FormatError says whose it is."""
        found = []
        for holder, body in zip(self.holders, asked, strict=True):
            try:
                found.append(ask(holder, body))
            except FormatError as error:
                raise FormatError(f"{holder}: {error}") from error
        return found


def found(
    holders: Sequence[KeyHolder], pinned: Sequence[str], roster: str | None, wait: Callable[[str], None]
) -> KeyHolders | None:
    """Return the app's key holders, if all are there and go by this roster; else wait a little and return None."""
    here: dict[str, tuple[KeyHolder, Terms]] = {}
    away = ""
    for holder in holders:
        try:
            terms = holder.terms()
            here[terms.key.fingerprint.hex()] = holder, terms
        except Silent as error:
            away = str(error)
        except (FormatError, Refusal) as error:
            away = f"a key holder with another answer: {error}"
    amiss = _amiss(here, pinned, roster)
    if not amiss:
        return KeyHolders(tuple(here[key][0] for key in pinned), tuple(here[key][1].key for key in pinned))
    if not away:
        for holder, _ in here.values():
            holder.forget()
    wait(away or amiss)
    return None


def _amiss(here: Mapping[str, tuple[KeyHolder, Terms]], pinned: Sequence[str], roster: str | None) -> str:
    """Return what is missing before these key holders can be asked, if anything is."""
    missing = next((key for key in pinned if key not in here), None)
    if missing is not None:
        return f"the key holder of the app, whose key is {missing}: at --keyholder is {' and '.join(here)}"
    for holder, terms in (here[key] for key in pinned):
        if roster not in (None, terms.roster):
            return (
                f"a key holder that goes by the coordinator's roster {str(roster)[:16]}: {holder} has "
                f"{(terms.roster or 'none')[:16]}. Start koinon keyholder with --roster and --roster-key"
            )
    return ""
