"""Builds each round's receipt from what the round left, and chains it to the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from koinon.core.types import Purpose
from koinon.fleet.coordinator.ledger import Ledger
from koinon.fleet.coordinator.members import Members
from koinon.fleet.coordinator.stage import Settled, StageJob
from koinon.fleet.wire.receipts import Commit, Entry, Opening, Receipt, Sealed, canonical, seal
from koinon.fleet.wire.signatures import OwnKey, PublicKey, decoded


@dataclass(frozen=True)
class Models:
    """The blobs that a round led to: what the next round's clients get, and the model in it."""

    broadcast: str
    variables: str


@dataclass(frozen=True)
class Sum:
    """What is said of a round's sum: its digest, and what its release was charged."""

    aggregate: str | None
    privacy: str | None  # the round's line of the privacy ledger
    roster: str | None = None  # digest of who might take part


class ReceiptChain:
    """The receipts of one run."""

    def __init__(
        self, opening: Opening, key: OwnKey, ledger: Ledger, members: Members, keys: Mapping[str, PublicKey]
    ) -> None:
        self._opening, self._key, self._members, self._keys = opening, key, members, keys
        self._ledger = ledger
        self._previous: str | None = None

    @property
    def app(self) -> str:
        """The digest of the run's app."""
        return self._opening.app

    def next(self, round: int, stages: Mapping[Purpose, tuple[StageJob, Settled]], after: Models, summed: Sum) -> str:
        """Return the receipt of a round as the JSON that is kept."""
        train, _ = stages[Purpose.TRAIN]
        receipt = Receipt(
            run=self._opening.run,
            app=self._opening.app,
            round=round,
            previous=self._previous or self._found(),
            model_before=train.model,
            model_after=after.broadcast,
            variables=after.variables,
            aggregate=summed.aggregate,
            privacy=summed.privacy,
            roster=summed.roster,
            train=self._entries(stages, Purpose.TRAIN),
            evaluate=self._entries(stages, Purpose.EVALUATE),
            void={purpose.value: own.void for purpose, (_, own) in stages.items() if own.void is not None},
        )
        self._previous = receipt.digest()
        return canonical(seal(receipt, self._key).to_json())

    def _found(self) -> str:
        past = self._ledger.receipts(0)
        return Sealed.from_json(past[-1]).receipt.digest() if past else self._opening.digest()

    def _entries(self, stages: Mapping[Purpose, tuple[StageJob, Settled]], purpose: Purpose) -> tuple[Entry, ...]:
        if purpose not in stages:
            return ()
        _, settled = stages[purpose]
        made = {self._members[part.client].client for part in settled.received}
        return tuple(self._entry(client, settled, client in made) for client in settled.asked)

    def _entry(self, client: str, settled: Settled, made: bool) -> Entry:
        word = settled.commits.get(client)
        commit = None
        if word is not None:
            commit = Commit(
                root=word.root, length_bytes=word.size, weight=word.weight, signature=decoded(word.signature)
            )
        reason = None if made else settled.lost.get(client, "late: no update before the time was up")
        if word is not None and word.refused:
            reason = f"refused: {', '.join(word.refused[:3])} cannot be added"
        name = self._members[self._members.position(client)].name
        return Entry(client=client, name=name, key=self._keys[client], commit=commit, reason=reason)
