"""Encrypted sum: clients encrypt what they send, and a key holder that is not the server decrypts a round's sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from koinon.channel.hidden_sum import HiddenSum
from koinon.core.algorithm import Algorithm
from koinon.core.wire import Domain
from koinon.errors import ConfigurationError
from koinon.privacy.encrypted_sum import lattice, pads
from koinon.privacy.encrypted_sum.pads import MOST_HOLDERS
from koinon.privacy.encrypted_sum.parameters import Parameters
from koinon.privacy.encrypted_sum.trust import statement

_KEY_DIGITS = 64


@dataclass(frozen=True, kw_only=True, repr=False)
class Encrypted(HiddenSum):
    """Show the server only the sum of a round's updates, weights and metric sums, as a key holder decrypts it.

    ``key`` is the fingerprint of the key holder's public key, 64 hexadecimal digits, as ``koinon keyholder`` prints it: a
    part of the app, so nobody takes part under another. Of several key holders that share every sum (experimental) it is the
    fingerprints of all: no sum is known without each of them, and no update unless all work together with the
    coordinator. Numbers are cut to multiples of ``2**-fraction_bits``, towards 0, so
    that no norm grows. Weights are whole numbers up to ``largest_weight``: a client that weighs more does not take part. Fewer
    than ``least`` clients are never added up: a key whose own floor is lower is refused. Small weights and fewer bits let
    several numbers share a coefficient, and updates be shorter (Fan and Vercauteren, ePrint 2012/144). In simulation nothing
    is encrypted: the very sum that the key holder would decrypt is computed, and figures of single clients are dropped.
    """

    key: str | tuple[str, ...]
    fraction_bits: int = 20
    largest_weight: int = 4096
    least: int = 3
    figures: int = 256

    domain: ClassVar[Domain] = Domain.CIPHERTEXT
    fewest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self._check_fields()
        if not isinstance(self.key, str):
            object.__setattr__(self, "key", tuple(self.key))
        wrong = [key for key in self.keys if len(key) != _KEY_DIGITS or not set(key) <= set("0123456789abcdef")]
        if wrong:
            raise ConfigurationError(
                f"Encrypted.key is a key holder's fingerprint, {_KEY_DIGITS} hexadecimal digits; found {wrong[0][:80]!r}. koinon "
                "keyholder prints it: ask the key holder, not the coordinator."
            )
        if not 0 < len(set(self.keys)) == len(self.keys) <= MOST_HOLDERS:
            raise ConfigurationError(
                f"Encrypted.key has the fingerprints of 1 to {MOST_HOLDERS} different key holders; found {len(self.keys)}, "
                f"{len(set(self.keys))} of them different."
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """The fingerprints of all key holders; updates are encrypted under the first one's lattice."""
        return (self.key,) if isinstance(self.key, str) else self.key

    def protection(self, *, roster: bool) -> str:
        """Return whom the encryption protects from whom."""
        return f"{self!r}: {' '.join(statement(self.least, roster, len(self.keys)))}"

    def require(self) -> None:
        """Raise UnsupportedError unless ``koinon[he]`` is installed, where updates are made: a coordinator needs it not."""
        lattice.require()
        pads.require()

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes of an update's ciphertexts where ``least`` clients send numbers of at most 1: of more, more."""
        found = self.parameters(values=max(1, sum(sizes.values())), cohort=self.least, bound=1.0)
        return found.ciphertexts * found.ciphertext_bytes

    def parameters(self, *, values: int, cohort: int, bound: float, uniform: bool = False) -> Parameters:
        """Return what an encrypted sum of these updates must be agreed on; ``uniform`` weights are all 1.

        Raises ConfigurationError where no exact sum fits.
        """
        return Parameters(
            cohort=cohort,
            bound=bound,
            largest_weight=1 if uniform else self.largest_weight,
            scale=self.fraction_bits,
            values=values,
            figures=self.figures,
        )


def encrypted_of(algorithm: Algorithm) -> Encrypted | None:
    """Return the step under which updates travel encrypted, if the algorithm has it."""
    return next((step for step in algorithm.channel if isinstance(step, Encrypted)), None)
