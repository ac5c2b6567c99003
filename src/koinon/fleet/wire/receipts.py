"""What the coordinator owes its clients after a round: a signed receipt, chained to the one before it by hash.

A receipt names everyone who was asked, each signed commit as it came, and the digests of the models before and after
and of the exact sum between them. Whoever holds the chain and the coordinator's public key can check it offline:
nothing of it can be changed, left out or put in later. What was sent itself is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar

from koinon.core.types import Purpose
from koinon.errors import FormatError
from koinon.fleet.wire.signatures import Kind, OwnKey, PublicKey, decoded, digest, encoded, signed_text
from koinon.fleet.wire.texts import is_digest, is_writable

_SIGNATURE_BYTES = 64
Record = TypeVar("Record")


def canonical(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no escapes beyond those JSON needs."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What a client signed: the root of its chunks' digests, their length in bytes, its weight; 64 bytes over it."""

    root: str
    length_bytes: int
    weight: int
    signature: bytes

    def __post_init__(self) -> None:
        _digests(self, "root")
        _whole(self, "length_bytes", "weight")
        if not isinstance(self.signature, bytes) or len(self.signature) != _SIGNATURE_BYTES:
            raise FormatError("A commit's signature has 64 bytes.")

    def text(self, receipt: Receipt, purpose: Purpose, client: str) -> bytes:
        """Return what ``client`` signed, if it was asked what ``receipt`` says."""
        model = receipt.model_before if purpose is Purpose.TRAIN else receipt.variables
        return signed_text(
            "update",
            receipt.run,
            receipt.round,
            purpose.value,
            client,
            model,
            self.root,
            self.length_bytes,
            self.weight,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the commit as JSON."""
        return {**asdict(self), "signature": encoded(self.signature)}

    @classmethod
    def from_json(cls, value: Any) -> Commit:
        """Return the commit of :meth:`to_json`. Raises FormatError for anything else."""
        return _record(cls, value, signature=_exactly)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One client that was asked. ``commit`` is None if it committed nothing; ``reason`` is why it does not count."""

    client: str
    name: str
    key: PublicKey
    commit: Commit | None
    reason: str | None

    def __post_init__(self) -> None:
        _texts(self, "client", "name")
        if self.reason is not None:
            _texts(self, "reason")
        if self.accepted and self.commit is None:
            raise FormatError(f"{self.name} cannot be accepted: it committed nothing.")

    @property
    def accepted(self) -> bool:
        """Whether its update is in the sum."""
        return self.reason is None

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        return {
            "client": self.client,
            "name": self.name,
            "key": {"kind": self.key.kind.value, "raw": encoded(self.key.raw)},
            "commit": None if self.commit is None else self.commit.to_json(),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, value: Any) -> Entry:
        """Return the entry of :meth:`to_json`. Raises FormatError for anything else."""
        return _record(cls, value, key=_key, commit=lambda own: None if own is None else Commit.from_json(own))


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What happened in one round.

    ``previous`` is the digest of the receipt before, of the :class:`Opening` in round 1. Clients trained from the blob
    ``model_before``; the next round's will from ``model_after``. ``variables`` is the blob of the model alone, which
    was judged after the round and is the result if the run ends here (with most algorithms all there is to send, so
    the same as ``model_after``). ``aggregate`` is the digest of the exact sum; None in a round without clients, where the
    sum is private, and where the aggregator reads more than a sum. ``privacy`` is the round's line of the privacy ledger,
    ``roster`` the digest of who might take part in a secure sum. ``void`` says of ``train`` or ``evaluate`` why it has no
    result: nobody's update counts then, and without one of ``train`` the model stays. The last two are left out where
    there is none.
    """

    run: str
    app: str
    round: int
    previous: str
    model_before: str
    model_after: str
    variables: str
    aggregate: str | None
    privacy: str | None
    train: tuple[Entry, ...]
    evaluate: tuple[Entry, ...] = ()
    roster: str | None = None
    void: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _texts(self, "run")
        _whole(self, "round")
        _digests(self, "app", "previous", "model_before", "model_after", "variables")
        if self.aggregate is not None:
            _digests(self, "aggregate")
        if self.roster is not None:
            _digests(self, "roster")
        if self.privacy is not None:
            _texts(self, "privacy")
        for asked in (self.train, self.evaluate):
            if len({entry.client for entry in asked}) != len(asked):
                raise FormatError(f"The receipt of round {self.round} lists a client twice.")
        self._check_void()

    def _check_void(self) -> None:
        if not isinstance(self.void, dict) or not set(self.void) <= {Purpose.TRAIN.value, Purpose.EVALUATE.value}:
            raise FormatError(f"A receipt says of train and evaluate why they are void; found {self.void!r:.80}.")
        for purpose, why in self.void.items():
            if not isinstance(why, str) or not why or not is_writable(why):
                raise FormatError(f"Why a stage is void is a text; found {why!r:.80}.")
            if any(entry.accepted for entry in self.asked(Purpose(purpose))):
                raise FormatError(f"Round {self.round} ({purpose}) is void, and its receipt counts updates.")

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON: what is signed, and what the next receipt is chained to."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest(canonical(self.to_json()).encode())

    def asked(self, purpose: Purpose) -> tuple[Entry, ...]:
        """Return those who were asked to train, or to evaluate."""
        return self.train if purpose is Purpose.TRAIN else self.evaluate

    def model(self, purpose: Purpose) -> str:
        """Return the blob that was trained from, or judged."""
        return self.model_before if purpose is Purpose.TRAIN else self.variables

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as JSON."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("roster", "void"):
            if not own[name]:
                del own[name]
        return {
            name: [e.to_json() for e in value] if isinstance(value, tuple) else value for name, value in own.items()
        }

    @classmethod
    def from_json(cls, value: Any) -> Receipt:
        """Return the receipt of :meth:`to_json`. Raises FormatError for anything else."""
        known = {"roster": None, "void": {}, **value} if isinstance(value, dict) else value
        return _record(cls, known, train=_entries, evaluate=_entries)


@dataclass(frozen=True)
class Opening:
    """Where a chain begins: which run of which app, and whose signature every receipt bears."""

    run: str
    app: str
    coordinator: PublicKey

    def digest(self) -> str:
        """Return what the first receipt is chained to."""
        own = {"run": self.run, "app": self.app, "coordinator": encoded(self.coordinator.raw)}
        return digest(canonical(own).encode())


@dataclass(frozen=True)
class Sealed:
    """A receipt and the coordinator's signature over its digest."""

    receipt: Receipt
    signature: bytes

    def signed_by(self, coordinator: PublicKey) -> bool:
        """Return whether the signature is the coordinator's."""
        return coordinator.signed(self.signature, signed_text("receipt", self.receipt.digest()))

    def text(self) -> str:
        """Return what is kept: canonical JSON."""
        return canonical(self.to_json())

    @classmethod
    def of_text(cls, text: str) -> Sealed:
        """Return the receipt of :meth:`text`. Raises FormatError for any other text, also one that means the same."""
        try:
            sealed = cls.from_json(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"A receipt is not JSON: {error!s:.80}.") from error
        if sealed.text() != text:
            raise FormatError("A receipt is not in its canonical form: something has rewritten it.")
        return sealed

    def to_json(self) -> dict[str, Any]:
        """Return what is sent."""
        return {"receipt": self.receipt.to_json(), "signature": encoded(self.signature)}

    @classmethod
    def from_json(cls, value: Any) -> Sealed:
        """Return the receipt of :meth:`to_json`. Raises FormatError for anything else, a field too many included."""
        return _record(cls, value, receipt=Receipt.from_json, signature=_exactly)


def seal(receipt: Receipt, key: OwnKey) -> Sealed:
    """Return the receipt, signed."""
    return Sealed(receipt, key.sign(signed_text("receipt", receipt.digest())))


@dataclass(frozen=True)
class Finding:
    """What does not hold. ``round`` is that of the receipt, or None for the chain as a whole."""

    round: int | None
    what: str


def check_chain(
    opening: Opening, receipts: Sequence[Sealed], keys: Mapping[str, PublicKey] | None = None
) -> tuple[Finding, ...]:
    """Return everything that does not hold in a chain; nothing, if it is whole from its first round to its last.

    ``keys`` are clients' public keys known from elsewhere. That the chain was cut off after its last receipt does
    not show in the chain: compare its length with what is known of the run.
    """
    found: list[Finding] = []
    known = dict(keys or {})
    before: Receipt | None = None
    for sealed in receipts:
        receipt = sealed.receipt
        wrong = [*_links(opening, before, receipt), *_signatures(receipt, known)]
        if not sealed.signed_by(opening.coordinator):
            wrong.insert(0, "the signature is not the coordinator's")
        found += [Finding(receipt.round, what) for what in dict.fromkeys(wrong)]
        before = receipt
    return tuple(found)


def _links(opening: Opening, before: Receipt | None, receipt: Receipt) -> list[str]:
    wrong, place = [], before.round + 1 if before else 1
    if receipt.round != place:
        wrong.append(f"round {place} should stand here: a receipt is missing, repeated or out of its order")
    if (receipt.run, receipt.app) != (opening.run, opening.app):
        wrong.append(f"it belongs to run {receipt.run} of app {receipt.app[:12]}, not to this one")
    if receipt.previous != (before.digest() if before else opening.digest()):
        wrong.append("it is not chained to " + ("the receipt before it" if before else "this run's opening"))
    if before and receipt.model_before != before.model_after:
        wrong.append("its clients trained from another model than the round before it led to")
    if Purpose.TRAIN.value in receipt.void and (receipt.model_after != receipt.model_before or receipt.aggregate):
        wrong.append("it is void, and yet another model or a sum came of it")
    return wrong


def _signatures(receipt: Receipt, known: dict[str, PublicKey]) -> list[str]:
    """Return whose commits are not signed by them; a key once seen is a client's key for good."""
    wrong = []
    for purpose in (Purpose.TRAIN, Purpose.EVALUATE):
        for entry in receipt.asked(purpose):
            if known.setdefault(entry.client, entry.key) != entry.key:
                wrong.append(f"{entry.name} ({entry.client}) stands there with another key than its own")
            commit = entry.commit
            text = None if commit is None else commit.text(receipt, purpose, entry.client)
            if commit is not None and text is not None and not entry.key.signed(commit.signature, text):
                wrong.append(f"{entry.name} ({entry.client}) has not signed the commit listed for {purpose.value}")
    return wrong


def _record(kind: type[Record], value: Any, **readers: Callable[[Any], Any]) -> Record:
    """Return a frozen record of exactly its fields."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # every kind here is a dataclass
    if not isinstance(value, dict) or value.keys() != names:
        raise FormatError(f"A {kind.__name__.lower()} has the fields {', '.join(sorted(names))}, and no others.")
    return kind(**{name: readers[name](own) if name in readers else own for name, own in value.items()})


def _entries(value: Any) -> tuple[Entry, ...]:
    if not isinstance(value, list):
        raise FormatError("Those who were asked stand in a list.")
    return tuple(Entry.from_json(item) for item in value)


def _key(value: Any) -> PublicKey:
    if not isinstance(value, dict) or value.keys() != {"kind", "raw"}:
        raise FormatError("A public key has a kind and raw bytes.")
    try:
        return PublicKey(Kind(value["kind"]), _exactly(value["raw"]))
    except ValueError as error:
        raise FormatError("A public key is of kind ed25519 or p256.") from error


def _exactly(value: Any) -> bytes:
    """Return the bytes of the one text that stands for them: base64url has others, which would hide a change."""
    raw = decoded(value) if isinstance(value, str) and value.isascii() else b""
    if encoded(raw) != value:
        raise FormatError("A key or signature is not base64url without padding.")
    return raw


def _texts(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, str) or not value or not is_writable(value) or (name != "reason" and "\n" in value):
            raise FormatError(f"{type(record).__name__}.{name} must be a text; found {value!r:.80}.")


def _whole(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if type(value) is not int or not 0 <= value < 2**53:
            raise FormatError(f"{type(record).__name__}.{name} must be a whole number; found {value!r:.80}.")


def _digests(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, str) or not is_digest(value):
            raise FormatError(f"{type(record).__name__}.{name} must be a SHA-256 in hex; found {value!r:.80}.")
