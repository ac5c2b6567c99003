"""A client's half: from its keys to the shares it opens. Each step takes a record and gives the next.

The participant writes the record down *before* it sends what came with it. Everything a client draws comes from 32 bytes
of entropy, so a step that is done again after a crash says the same, byte for byte; masking throws them away.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum import masks
from koinon.privacy.secure_sum.keys import Own, StandingKey
from koinon.privacy.secure_sum.messages import (
    CODE_BYTES,
    Cohort,
    Delivery,
    Request,
    Shares,
    Sign,
    SignedKeys,
    Survivors,
    Verify,
    agreement_message,
    standing_text,
    unmasking_message,
)
from koinon.privacy.secure_sum.neighbours import quorum
from koinon.privacy.secure_sum.primitives import KEY_BYTES, Role, derive, seal, unseal
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.terms import Floors, Past, Terms
from koinon.privacy.secure_sum.wire import Kind, kind_of


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client between rounds: what it is called, what it insists on, what it remembers of the run, its standing key."""

    party: str
    floors: Floors
    past: Past
    standing: StandingKey | None = None

    @property
    def key(self) -> StandingKey:
        """The standing key of a client that has begun."""
        assert self.standing is not None, "`begin` makes it"
        return self.standing


@dataclass(frozen=True, kw_only=True)
class Advertised:
    """A client that has published its keys."""

    client: Client
    terms: Terms
    own: Own


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A client that has dealt its shares."""

    client: Client
    terms: Terms
    own: Own
    cohort: Cohort


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A client that has everybody's shares and can mask."""

    client: Client
    terms: Terms
    own: Own
    cohort: Cohort
    sharers: frozenset[int]
    held: Mapping[int, bytes]  # by owner: a share of its own mask's seed and one of its mask key


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A client whose vector may leave. It has no secret of the attempt any more, only shares of others'."""

    client: Client
    cohort: Cohort
    sharers: frozenset[int]
    held: Mapping[int, bytes]
    agreed: Survivors | None = None  # the one set of survivors that it has agreed to or opened its shares for


State: TypeAlias = Advertised | Shared | Ready | Masked


def begin(client: Client, terms: Terms, entropy: bytes, sign: Sign) -> tuple[Advertised, bytes]:
    """Return the client after it has made its keys, and its message of them.

    ``entropy`` is 32 bytes from the operating system's generator, never used before. Raises ProtocolError for terms below
    the client's floors and for a round that is replayed.
    """
    if len(entropy) != KEY_BYTES:
        raise ValueError(f"{KEY_BYTES} bytes of entropy are needed")
    client.floors.check_terms(terms)
    begun = replace(client, past=client.past.begun(terms))
    if client.standing is None or not client.standing.serves(terms.round):
        begun = replace(begun, standing=StandingKey.fresh(client.party, terms, entropy, sign))
    state = Advertised(client=begun, terms=terms, own=Own(entropy, terms.digest()))
    return state, advertised(state)


def advertised(state: Advertised) -> bytes:
    """Return the message of a client's keys."""
    standing = state.client.key
    return SignedKeys(state.own.public(standing), standing.signature).to_bytes(state.own.terms)


def share(state: Advertised, body: bytes, verify: Verify) -> tuple[Shared, bytes]:
    """Return the client after it has dealt its shares among the cohort of the message ``body``, and its message of them.

    Raises ProtocolError for a cohort that is below the floors, lacks this client's keys or holds a key that is unsigned,
    foreign or of low order, or a mask key twice.
    """
    cohort = Cohort.read(body, state.own.terms)
    state.client.floors.check_cohort(len(cohort), cohort.degree)
    _check_members(state, cohort, verify)
    me, standing, sealed = cohort.places[state.client.party], state.client.key, {}
    for holder, plain in state.own.deal(cohort, state.own.holders(cohort, me)).items():
        if holder != me:
            sealed[holder] = seal(_sealing_key(state, cohort, holder, me, holder), plain, _ends(cohort, me, holder))
    codes = b"" if cohort.complete else _codes(standing, cohort, Role.SEEN, me, range(len(cohort)), b"")
    after = Shared(client=state.client, terms=state.terms, own=state.own, cohort=cohort)
    return after, Shares(sealed, codes).to_bytes(cohort)


def receive(state: Shared, body: bytes) -> Ready:
    """Return the client with the shares that the message ``body`` delivers to it. Raises ProtocolError."""
    cohort, client = state.cohort, state.client
    delivery, me = Delivery.read(body, cohort), cohort.places[client.party]
    senders, sharers = delivery.sealed.keys(), delivery.sharers
    if me not in sharers or me in senders or not senders <= sharers:
        raise ProtocolError(
            f"The coordinator says that {client.party!r} has not shared, or delivers shares of who has not. "
            "Nothing can be masked for such a set; leave the round."
        )
    if cohort.complete and senders != sharers - {me}:
        raise ProtocolError(
            f"{len(sharers) - 1 - len(senders)} members have shared, but their shares for us are missing."
        )
    client.floors.check_survivors(len(sharers), quorum(len(cohort)))
    holders = sharers.intersection(state.own.holders(cohort, me))
    if (
        len(holders) < cohort.degree.threshold
    ):  # this client has masks with these: the coordinator could choose them, or none
        raise ProtocolError(
            f"{len(holders)} of those who hold shares of {client.party!r} have shared, and {cohort.degree.threshold} are needed: with "
            "fewer masks than that its vector could be read. Nothing is masked; leave the round."
        )
    _check_codes(state, delivery, holders - {me})
    held = {}
    for sender in sorted(senders):
        key = _sealing_key(state, cohort, sender, sender, me)
        plain = unseal(key, delivery.sealed[sender], _ends(cohort, sender, me))
        if plain is None:
            raise ProtocolError(
                f"The share from {cohort.names[sender]!r} does not open: it has seen another cohort, or the share was changed on the "
                "way, or is for somebody else. Leave the round."
            )
        held[sender] = plain
    if cohort.complete:
        held |= state.own.deal(cohort, (me,))
    return Ready(client=client, terms=state.terms, own=state.own, cohort=cohort, sharers=sharers, held=held)


def mask(state: Ready, vector: Vector, threads: int = 2) -> Masked:
    """Mask a vector in place and return the client after it; the entropy is gone, so it can be done once.

    The vector is that of ``state.terms.layout``. Write the masked vector and the returned record down before either
    leaves: to mask another vector for the same round would give their difference away. Raises ProtocolError.
    """
    layout = state.terms.layout
    if not layout.fits(vector):
        raise ProtocolError(
            f"A vector of {layout.numbers:,} numbers of {layout.bits} bits and {1 + layout.sums} sums was agreed on; found "
            f"{vector.body.shape} {vector.body.dtype} and {vector.tail.shape}."
        )
    masks.apply(vector, _masks(state), threads)
    client = replace(state.client, past=replace(state.client.past, masked=state.terms.round))
    return Masked(client=client, cohort=state.cohort, sharers=state.sharers, held=state.held)


def agree(state: Masked, body: bytes) -> tuple[Masked, bytes]:
    """Return the client after it has agreed to the survivors of the message ``body``, and its message of that.

    It agrees to one set, and tells each of them so under a code. Raises ProtocolError for another, and for sets that
    overlap, are not all who shared, lack this client or are too few.
    """
    cohort, survivors = state.cohort, Survivors.read(body, state.cohort)
    after = replace(state, agreed=_checked(state, survivors))
    me, text = cohort.places[state.client.party], survivors.text(cohort)
    codes = _codes(state.client.key, cohort, Role.AGREED, me, sorted(survivors.active), text)
    return after, agreement_message(cohort, codes)


def reveal(state: Masked, body: bytes) -> tuple[Masked, bytes]:
    """Return the client after it has opened its shares for the request ``body``, and its message of them.

    Of a survivor it opens the share of the own mask's seed, of a dead one the share of the mask key, and never both: there
    is one answer for a (run, round). The same survivors again get the same answer. Raises ProtocolError.
    """
    request, cohort = Request.read(body, state.cohort), state.cohort
    survivors, me = _checked(state, request.survivors), cohort.places[state.client.party]
    text, wrong = survivors.text(cohort), []
    for member in sorted(request.codes.keys() - {me}):
        code = state.client.key.code(cohort, Role.AGREED, member, me, text)
        if member not in survivors.active or not hmac.compare_digest(code, request.codes[member]):
            wrong.append(cohort.names[member])
    agreed = len(request.codes.keys() - {me}) - len(wrong) + 1  # with itself
    if agreed < quorum(len(cohort)):
        raise ProtocolError(
            f"{agreed} survivors have told this client that they are, and {quorum(len(cohort))} are needed: others may have been "
            f"shown another set. Codes that are not their senders' own: {', '.join(wrong[:3]) or 'none'}. No share is opened."
        )
    shares = {
        owner: plain[:KEY_BYTES] if owner in survivors.active else plain[KEY_BYTES:]
        for owner, plain in state.held.items()
    }
    return replace(state, agreed=survivors), unmasking_message(cohort.transcript, shares)


def answer(state: State, body: bytes, verify: Verify) -> tuple[State, bytes | None]:
    """Return the client after a message of the coordinator, whichever it is, and what it says to it, if anything.

    A message that comes again is answered as before, or needs no answer any more. Raises FormatError or ProtocolError for
    one that this client refuses; the state is then what it was.
    """
    kind = kind_of(body)
    if kind is Kind.COHORT and isinstance(state, Advertised):
        return share(state, body, verify)
    if kind is Kind.COHORT and isinstance(state, Shared | Ready) and body == state.cohort.body:
        return state, share(Advertised(client=state.client, terms=state.terms, own=state.own), body, verify)[1]
    if kind is Kind.DELIVERY and isinstance(state, Shared):
        return receive(state, body), None
    if kind is Kind.SURVIVORS and isinstance(state, Masked):
        return agree(state, body)
    if kind is Kind.REQUEST and isinstance(state, Masked):
        return reveal(state, body)
    if (
        isinstance(state, Masked)
        and body == state.cohort.body
        or kind is Kind.DELIVERY
        and isinstance(state, Ready | Masked)
    ):
        return state, None
    raise ProtocolError(
        f"{state.client.party!r} has come as far as {type(state).__name__.lower()!r}, and a message {kind.name.lower()!r} is "
        "not what follows: the coordinator has left a step out, or sends another cohort. Leave the round."
    )


def pair_mask(agreed: bytes, cohort: Cohort, me: int, other: int) -> masks.Mask:
    """Return the mask of two members as the first applies it; ``agreed`` is what their mask keys share."""
    low, high = sorted((me, other))
    return masks.Mask(derive(agreed, cohort.transcript, Role.PAIR, low, high), me < other)


def self_mask(seed: bytes, cohort: Cohort, me: int) -> masks.Mask:
    """Return a member's own mask."""
    return masks.Mask(derive(seed, cohort.transcript, Role.SELF, me), True)


def _masks(state: Ready) -> list[masks.Mask]:
    """Return this client's masks: its own, and one with each who holds its shares or whose shares it holds."""
    cohort, own = state.cohort, state.own
    me = cohort.places[state.client.party]
    neighbours = (state.sharers & set(own.holders(cohort, me)) | state.held.keys()) - {me}
    applied = [self_mask(own.seed, cohort, me)]
    for other in sorted(neighbours):
        applied.append(pair_mask(own.agreed(cohort, other), cohort, me, other))
    return applied


def _check_members(state: Advertised, cohort: Cohort, verify: Verify) -> None:
    if len(cohort) > state.terms.layout.cohort:
        raise ProtocolError(
            f"The cohort has {len(cohort):,} members, and the ring has room for {state.terms.layout.cohort:,}: a sum "
            "could wrap. Plan the layout for the largest cohort."
        )
    mine = cohort.places.get(state.client.party)
    if mine is None or cohort.signed[mine].keys != state.own.public(state.client.key):
        raise ProtocolError(f"The keys that {state.client.party!r} has sent are not in the cohort. Leave the round.")
    # Standing keys are known from earlier rounds, so a member may sign another's as its own. It has none of its secret: it seals
    # nothing and says nothing under it, and to refuse such a cohort would let it stop every round without being named.
    if len({signed.keys.mask for signed in cohort.signed}) != len(cohort):
        raise ProtocolError("Two members of the cohort have one key: somebody is there twice. Leave the round.")
    for name, signed in zip(cohort.names, cohort.signed, strict=True):
        text = standing_text(state.terms.run, name, state.terms.round, signed.keys.standing)
        if name != state.client.party and not verify(name, text, signed.signature):
            raise ProtocolError(
                f"The standing key of {name!r} is not signed by it for this run and round, or {name!r} is not in the roster. Leave the "
                "round: somebody stands between the members."
            )


def _check_codes(state: Shared, delivery: Delivery, holders: frozenset[int]) -> None:
    """Check that everybody with whom this client is to have a mask has seen the same cohort, so knows the same keys of it.

    Whoever sent a share has shown that by its key; the others that hold shares of this client show it by a code.
    """
    cohort, me = state.cohort, state.cohort.places[state.client.party]
    if delivery.codes.keys() != holders - delivery.sealed.keys():
        raise ProtocolError(
            f"{len(holders - delivery.sealed.keys())} members that hold shares of {state.client.party!r} have sent it none, and "
            f"codes of {len(delivery.codes)} have come: nobody would say that the others' keys are theirs. Leave the round."
        )
    for member, code in delivery.codes.items():
        if not hmac.compare_digest(code, state.client.key.code(cohort, Role.SEEN, member, me, b"")):
            raise ProtocolError(
                f"The code of {cohort.names[member]!r} on the cohort is not its own: it has seen another one, or the code was changed on "
                "the way. Leave the round."
            )


def _checked(state: Masked, survivors: Survivors) -> Survivors:
    """Return the survivors if this client may agree to them."""
    active, dead, names = survivors.active, survivors.dead, state.cohort.names
    if state.agreed not in (None, survivors):
        raise ProtocolError(
            f"{state.client.party!r} has agreed to {len(state.agreed.active) if state.agreed else 0} survivors of this round and is "
            f"asked about another set of {len(active)}. The difference of two sums would be somebody's update: it answers once."
        )
    if both := active & dead:
        raise ProtocolError(
            f"{names[min(both)]!r} is called both active and dead: with both of its secrets its update could be read."
        )
    if active | dead != state.sharers:
        raise ProtocolError(
            f"{len(state.sharers)} members have shared, and {len(active)} active and {len(dead)} dead ones are not they."
        )
    if state.cohort.places[state.client.party] not in active:
        raise ProtocolError(
            f"{state.client.party!r} has given its vector and is not among the survivors. It agrees to nothing."
        )
    state.client.floors.check_survivors(len(active), quorum(len(state.cohort)))
    return survivors


def _codes(standing: StandingKey, cohort: Cohort, role: Role, me: int, members: Iterable[int], text: bytes) -> bytes:
    """Return a client's codes for members one after the other; zeros stand for its own."""
    return b"".join(bytes(CODE_BYTES) if i == me else standing.code(cohort, role, me, i, text) for i in members)


def _sealing_key(state: Advertised | Shared, cohort: Cohort, other: int, sender: int, receiver: int) -> bytes:
    """Return what seals a share between this client and another, from both keys of either.

    The standing ones say who it is from. Those of the attempt are gone once both have masked: a standing key that is stolen
    later opens no share between survivors that was recorded. Of who was called dead the mask key has been opened: what it has
    dealt hangs on the standing keys alone, so whoever has its vector all the same can read it with its stolen key.
    """
    agreed = state.client.key.agreed(cohort, other) + state.own.agreed(cohort, other)
    return derive(agreed, cohort.transcript, Role.SHARE, sender, receiver)


def _ends(cohort: Cohort, sender: int, receiver: int) -> bytes:
    return cohort.transcript + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
