"""A client's keys: one that stands for many rounds and is signed once, and what is drawn for a single attempt."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np

from koinon.privacy.secure_sum import shamir
from koinon.privacy.secure_sum.messages import CODE_BYTES, ROUNDS, Cohort, PublicKeys, Sign, standing_text
from koinon.privacy.secure_sum.primitives import KEY_BYTES, PROTOCOL, REMEMBERED, KeyPair, Role, derive, digest, stream
from koinon.privacy.secure_sum.terms import Terms


@dataclass(frozen=True)
class StandingKey:
    """An X25519 key for rounds of one run: it says who somebody is. Alone it seals nothing, so it opens no round of before.

    What it has agreed on with others is remembered beside it and not written down.
    """

    secret: bytes
    signature: bytes
    born: int  # the round that it was made for

    @classmethod
    def fresh(cls, party: str, terms: Terms, entropy: bytes, sign: Sign) -> Self:
        """Return a new key from a client's entropy, signed for the run of the terms and the rounds about theirs."""
        secret = derive(entropy, terms.digest(), Role.STANDING_KEY)
        return cls(secret, sign(standing_text(terms.run, party, terms.round, KeyPair(secret).public)), terms.round)

    def serves(self, round: int) -> bool:
        """Return whether the key is still to be used in a round."""
        return self.born // ROUNDS == round // ROUNDS

    @cached_property
    def pair(self) -> KeyPair:
        """The key that agrees with others, with each of them once."""
        return KeyPair(self.secret)

    def agreed(self, cohort: Cohort, other: int) -> bytes:
        """Return what this key and a member's share. Raises ProtocolError for low order."""
        return self.pair.agree(cohort.signed[other].keys.standing, cohort.names[other])

    def code(self, cohort: Cohort, role: Role, sender: int, receiver: int, text: bytes) -> bytes:
        """Return the code of 16 bytes on a text from a member to another: HMAC-SHA-256 under a key that only they have."""
        other = receiver if cohort.signed[sender].keys.standing == self.pair.public else sender
        ends = sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
        said = b"|".join((role.value, ends, cohort.transcript, text))
        return hmac.digest(self._code_key(self.agreed(cohort, other)), said, "sha256")[:CODE_BYTES]

    @cached_property
    def _code_key(self) -> Callable[[bytes], bytes]:
        """What makes of an agreement the key of a pair's codes; as it is the same in every round, it is made once."""
        return lru_cache(REMEMBERED)(lambda agreed: derive(agreed, digest(PROTOCOL), Role.CODE))


@dataclass(frozen=True)
class Own:
    """What a client has drawn for one attempt, all of it from its entropy."""

    entropy: bytes
    terms: bytes  # their digest

    def secret(self, role: Role) -> bytes:
        """Return the 32 bytes for a role."""
        return derive(self.entropy, self.terms, role)

    @cached_property
    def mask(self) -> KeyPair:
        """What makes the masks with others."""
        return KeyPair(self.secret(Role.MASK_KEY))

    @cached_property
    def seed(self) -> bytes:
        """What makes the own mask."""
        return self.secret(Role.SELF_SEED)

    def public(self, standing: StandingKey) -> PublicKeys:
        """Return what the others may know."""
        return PublicKeys(standing.pair.public, self.mask.public, commitment(self.seed))

    def agreed(self, cohort: Cohort, other: int) -> bytes:
        """Return what the mask keys of this client and a member share. Raises ProtocolError for low order."""
        return self.mask.agree(cohort.signed[other].keys.mask, cohort.names[other])

    def holders(self, cohort: Cohort, me: int) -> tuple[int, ...]:
        """Return who holds shares of this client's secrets: all, itself too, or k others that nobody could foretell.

        They are drawn by the client once it has seen everybody's keys, so neither the coordinator nor other members can
        steer who they are: those with the k least of 128-bit random numbers.
        """
        count, k = len(cohort), cohort.degree.neighbours
        if cohort.complete:
            return tuple(range(count))
        key = derive(self.entropy, cohort.transcript, Role.HOLDERS)
        words = np.frombuffer(stream(key, 16 * count), "<u8").reshape(count, 2)
        order = np.lexsort(words.T)
        return tuple(sorted(order[order != me][:k].tolist()))

    def deal(self, cohort: Cohort, holders: tuple[int, ...]) -> dict[int, bytes]:
        """Return for each holder its share of the own mask's seed and its share of the mask key, 64 bytes."""
        threshold = cohort.degree.threshold
        key = derive(self.entropy, cohort.transcript, Role.DEALING)
        coefficients = stream(key, 2 * KEY_BYTES * (threshold - 1))
        half = len(coefficients) // 2
        seed = shamir.split(self.seed, holders, threshold, coefficients[:half])
        mask = shamir.split(self.secret(Role.MASK_KEY), holders, threshold, coefficients[half:])
        return {holder: seed[holder] + mask[holder] for holder in holders}


def commitment(seed: bytes) -> bytes:
    """Return what a client publishes of its own mask's seed, so that a wrong share is an error and no number."""
    return digest(PROTOCOL, b" seed", seed)
