"""The coordinator's half: it collects, relays and adds up, and can do no more than that.

A record takes messages in any order and as often as they come; ``close`` ends a stage and says what to send. When to
close is for whoever has the clock. Vectors do not pass through here: add them up, and :func:`unmask` the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum import masks, shamir
from koinon.privacy.secure_sum.client import pair_mask, self_mask
from koinon.privacy.secure_sum.keys import commitment
from koinon.privacy.secure_sum.messages import (
    CODE_BYTES,
    Cohort,
    Delivery,
    Request,
    Shares,
    SignedKeys,
    Survivors,
    Verify,
    read_agreement,
    read_unmasking,
    standing_text,
)
from koinon.privacy.secure_sum.neighbours import degree, quorum
from koinon.privacy.secure_sum.primitives import KeyPair
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.terms import Terms

K = TypeVar("K")
V = TypeVar("V")


class Stage(Enum):
    """What the coordinator waits for."""

    KEYS = "keys"
    SHARES = "shares"
    VECTORS = "vectors"
    AGREEMENT = "agreement"
    UNMASKING = "unmasking"


@dataclass(frozen=True, kw_only=True)
class Server:
    """What the coordinator has. ``minimum`` survivors give a result, fewer none."""

    terms: Terms
    minimum: int = 3
    stage: Stage = Stage.KEYS
    keys: Mapping[str, SignedKeys] = field(default_factory=dict)
    cohort: Cohort | None = None
    shares: Mapping[int, Shares] = field(default_factory=dict)  # by sender
    held: Mapping[int, frozenset[int]] = field(
        default_factory=dict
    )  # whose shares each sharer has been sent, or has kept
    active: frozenset[int] = frozenset()
    codes: Mapping[int, bytes] = field(default_factory=dict)  # of those who agree, 16 bytes for each survivor
    answers: Mapping[int, Mapping[int, bytes]] = field(default_factory=dict)  # shares by who opened them and owner

    @property
    def known(self) -> Cohort:
        """The cohort, once there is one."""
        if self.cohort is None:
            raise ProtocolError("There is no cohort before the stage of the keys is closed.")
        return self.cohort

    @property
    def survivors(self) -> Survivors:
        """Who has shared and given its vector, and who has shared and not."""
        return Survivors(self.active, frozenset(self.shares.keys() - self.active))

    def holders(self, owner: int, among: Iterable[int]) -> set[int]:
        """Return who of some members has shares of another's secrets: itself too where the graph is complete."""
        own = {owner} if self.known.complete else set[int]()
        return (self.shares[owner].sealed.keys() | own) & set(among)

    def waited_for(self) -> frozenset[str]:
        """Return who has not done yet what the stage waits for; nobody is known before there is a cohort."""
        if self.stage is Stage.KEYS:
            return frozenset()
        done: Mapping[Stage, frozenset[int]] = {
            Stage.SHARES: frozenset(range(len(self.known))) - self.shares.keys(),
            Stage.VECTORS: frozenset(self.shares.keys() - self.active),
            Stage.AGREEMENT: self.active - self.codes.keys(),
            Stage.UNMASKING: self.active - self.answers.keys(),
        }
        return frozenset(self.known.names[i] for i in done[self.stage])

    @property
    def enough(self) -> bool:
        """Whether every secret that the sum needs can be opened."""
        return self.stage is Stage.UNMASKING and all(
            len(self.holders(owner, self.answers)) >= self.known.degree.threshold for owner in self.shares
        )


def take(server: Server, party: str, body: bytes, verify: Verify) -> Server:
    """Return the coordinator after a client's message of the stage it waits for; the same again changes nothing.

    Raises FormatError or ProtocolError for a message that is not one, is of another stage or says something else than the
    client's first: it is then as if it had not come.
    """
    if server.stage is Stage.KEYS:
        signed = SignedKeys.read(body, server.terms.digest())
        text = standing_text(server.terms.run, party, server.terms.round, signed.keys.standing)
        if not verify(party, text, signed.signature):
            raise ProtocolError(
                f"The standing key of {party!r} is not signed by it for this run and round. It is not in the cohort."
            )
        return replace(server, keys=_first(server.keys, party, signed))
    cohort, member = server.known, server.known.places.get(party)
    if member is None:
        raise ProtocolError(f"{party!r} is not in the cohort.")
    if server.stage is Stage.SHARES:
        shares = Shares.read(body, cohort)
        if member in shares.sealed or len(shares.sealed) != cohort.degree.neighbours - cohort.complete:
            raise ProtocolError(
                f"{party!r} deals {len(shares.sealed)} shares; {cohort.degree.neighbours} neighbours hold some."
            )
        return replace(server, shares=_first(server.shares, member, shares))
    if member not in server.active:
        raise ProtocolError(f"{party!r} has not survived: its vector has not come in time.")
    if server.stage is Stage.AGREEMENT:
        codes = read_agreement(body, cohort, len(server.active))
        return replace(server, codes=_first(server.codes, member, codes))
    if server.stage is Stage.UNMASKING:
        opened = read_unmasking(body, cohort)
        if opened.keys() != server.held[member]:
            raise ProtocolError(f"{party!r} opens other shares than it holds.")
        return replace(server, answers=_first(server.answers, member, opened))
    raise ProtocolError(f"No message is expected from {party!r}: it is the vectors that are waited for.")


def arrived(server: Server, party: str) -> Server:
    """Return the coordinator after a client's whole masked vector has come. Raises ProtocolError if it may not count."""
    member = server.known.places.get(party)
    if server.stage is not Stage.VECTORS or member is None or member not in server.shares:
        raise ProtocolError(
            f"A vector of {party!r} has come in the stage {server.stage.value}, and it has "
            f"{'shared' if member in server.shares else 'not shared'}. Do not add it: its masks would stay in the sum."
        )
    return replace(server, active=server.active | {member})


def close(server: Server) -> tuple[Server, dict[str, bytes]]:
    """Return the coordinator in the next stage, and what it sends to whom. Raises ProtocolError where too few are left."""
    if server.stage is Stage.KEYS:
        return _with_cohort(server)
    if server.stage is Stage.SHARES:
        return _deliver(server)
    cohort, survivors = server.known, server.survivors
    names = [cohort.names[i] for i in sorted(server.active)]
    if server.stage is Stage.VECTORS:
        _enough("survive", len(server.active), max(server.minimum, quorum(len(cohort))))
        _check_recoverable(server, server.active)
        return replace(server, stage=Stage.AGREEMENT), dict.fromkeys(names, survivors.to_bytes(cohort))
    if server.stage is Stage.AGREEMENT:
        _enough("agree to the survivors", len(server.codes), quorum(len(cohort)))
        return replace(server, stage=Stage.UNMASKING), _requests(server)
    raise ProtocolError("The last stage has no next one: unmask the sum.")


def unmask(server: Server, total: Vector, threads: int = 2) -> None:
    """Take all masks off the sum of the survivors' vectors, in place.

    Raises ProtocolError where a secret cannot be opened: the sum would be noise.
    """
    masks.apply(total, list(_left(server)), threads)


def _left(server: Server) -> Iterator[masks.Mask]:
    """Yield what undoes each mask that is left in the sum: the survivors' own, and those they have with the dead."""
    cohort, survivors = server.known, server.survivors
    weights: dict[tuple[int, ...], list[int]] = {}
    for owner in sorted(server.shares):
        opened = _opened(server, owner, weights)
        if owner in survivors.active:
            yield self_mask(opened, cohort, owner).taken_off()
            continue
        pair = KeyPair(opened)
        for other in sorted(survivors.active):
            if other in server.shares[owner].sealed or owner in server.shares[other].sealed:
                agreed = pair.agree(cohort.signed[other].keys.mask, cohort.names[other])
                yield pair_mask(agreed, cohort, other, owner).taken_off()


def _opened(server: Server, owner: int, weights: dict[tuple[int, ...], list[int]]) -> bytes:
    """Return a member's secret from the shares that were opened; ``weights`` keeps those of known sets of holders."""
    cohort, threshold = server.known, server.known.degree.threshold
    chosen = tuple(sorted(server.holders(owner, server.answers))[:threshold])
    if len(chosen) < threshold:
        raise ProtocolError(
            f"{threshold} members must open their shares of a secret of {cohort.names[owner]!r}; {len(chosen)} have. "
            "There is no result: wait for more answers, or go on with the next round."
        )
    if chosen not in weights:
        weights[chosen] = shamir.lagrange(chosen)
    secret = shamir.weighted(weights[chosen], [server.answers[member][owner] for member in chosen])
    keys, active = cohort.signed[owner].keys, owner in server.active
    if (commitment(secret) != keys.seed) if active else (KeyPair(secret).public != keys.mask):
        raise ProtocolError(
            f"The shares of a secret of {cohort.names[owner]!r} do not give it: it has dealt wrong ones, or one of "
            f"{', '.join(repr(cohort.names[i]) for i in chosen[:3])}, ... has opened a wrong one. There is no result."
        )
    return secret


def _with_cohort(server: Server) -> tuple[Server, dict[str, bytes]]:
    names = sorted(server.keys)
    _enough("send keys", len(names), server.minimum)
    graph = degree(len(names), server.terms.assumptions)
    cohort = Cohort(tuple(names), tuple(server.keys[name] for name in names), graph, server.terms.digest())
    return replace(server, stage=Stage.SHARES, cohort=cohort), dict.fromkeys(names, cohort.body)


def _deliver(server: Server) -> tuple[Server, dict[str, bytes]]:
    cohort, sharers = server.known, frozenset(server.shares)
    _enough("share", len(sharers), max(server.minimum, quorum(len(cohort))))
    _check_recoverable(server, sharers)  # a client masks with so many of them, or not at all
    inboxes: dict[int, dict[int, bytes]] = {member: {} for member in sharers}
    for sender, shares in server.shares.items():
        for holder in shares.sealed.keys() & sharers:
            inboxes[holder][sender] = shares.sealed[holder]
    letters = {}
    for i, inbox in inboxes.items():
        silent = server.shares[i].sealed.keys() & sharers - inbox.keys()
        codes = {holder: server.shares[holder].code(i) for holder in silent}
        letters[cohort.names[i]] = Delivery(sharers, inbox, codes).to_bytes(cohort)
    held = {i: frozenset(inbox) | ({i} if cohort.complete else set()) for i, inbox in inboxes.items()}
    return replace(server, stage=Stage.VECTORS, held=held), letters


def _requests(server: Server) -> dict[str, bytes]:
    """Return what each survivor is asked: the survivors, with the codes of those who agree for it."""
    cohort, agreed, letters = server.known, sorted(server.codes), {}
    for place, member in enumerate(sorted(server.active)):
        at = slice(place * CODE_BYTES, (place + 1) * CODE_BYTES)
        request = Request(server.survivors, {i: server.codes[i][at] for i in agreed})
        letters[cohort.names[member]] = request.to_bytes(cohort)
    return letters


def _check_recoverable(server: Server, among: frozenset[int]) -> None:
    cohort, threshold = server.known, server.known.degree.threshold
    for owner in server.shares:
        left = len(server.holders(owner, among))
        if left < threshold:
            raise ProtocolError(
                f"{left} neighbours of {cohort.names[owner]!r} are left, and {threshold} are needed to open its masks. "
                "There is no result: more have gone missing than was assumed. Go on with the next round."
            )


def _enough(what: str, found: int, least: int) -> None:
    if found < least:
        raise ProtocolError(
            f"{least} members must {what}; {found} have. There is no result, and nobody's update is known. "
            "Go on with the next round, or with a larger cohort."
        )


def _first(had: Mapping[K, V], name: K, value: V) -> Mapping[K, V]:
    if had.get(name, value) != value:
        raise ProtocolError(f"{name!r} has said something else before, and the first counts.")
    return {**had, name: value}
