"""An update as a participant makes it: computed, kept where it must not be made twice, masked where the app says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon import tree
from koinon.channel.encrypted import encrypted_of
from koinon.channel.secure_sum import secure_sum_of
from koinon.core.algorithm import Algorithm
from koinon.core.execution import Engine
from koinon.core.types import Job, Payload, Purpose
from koinon.errors import FleetError, FormatError, KoinonError, ProtocolError, StoreError
from koinon.fleet.participant.connection import Connection
from koinon.fleet.participant.encrypted import Seal
from koinon.fleet.participant.keep import Keep
from koinon.fleet.participant.secure_sum import Place, SecureSums
from koinon.fleet.wire.secure_terms import BODY, TAIL
from koinon.fleet.wire.signatures import digest, signed_text
from koinon.fleet.wire.update_file import to_pieces
from koinon.privacy.mechanism import Mechanism, Trust
from koinon.privacy.secure_sum.client import Masked
from koinon.privacy.secure_sum.primitives import KEY_BYTES
from koinon.privacy.secure_sum.ring import narrowed
from koinon.round.client import initial_state
from koinon.round.masked import Encoding, terms_of
from koinon.round.training import FederatedTraining
from koinon.store.blobs import unpack
from koinon.tree import Tree


@dataclass(frozen=True)
class Made:
    """An update's file, its weight, and the state to stage with it."""

    pieces: list[Any]
    weight: int
    state: Tree


class Unfit(KoinonError):
    """An update that cannot be hidden. Why is for this participant's own eyes: it tells of the update, or of its weight."""


class Maker:
    """Makes the updates of one participant in one run; ``sums`` carries the messages of its secure sums.

    ``cohort`` is the fewest clients with which it lets its update be added up.
    """

    def __init__(
        self, training: FederatedTraining, engine: Engine, keep: Keep, connection: Connection, sums: SecureSums, run: str,
        cohort: int = 1,
    ) -> None:  # fmt: skip
        self._training, self._engine, self._keep = training, engine, keep
        self._connection, self._sums, self._run = connection, sums, run
        self._model: tuple[str, Tree] = ("", None)
        self._seal = Seal(connection, keep.key, cohort)

    @property
    def model(self) -> str:
        """The digest of the model that need not be fetched."""
        return self._model[0]

    def take(self, name: str, data: memoryview) -> None:
        """Keep a model that came with its work, whose bytes have that digest."""
        self._model = (name, unpack(data))

    @property
    def opens(self) -> bool:
        """Whether there is more to say of an update once it has been sent."""
        return secure_sum_of(self._training.plan.algorithm) is not None

    def made(self, work: Mapping[str, Any], still: Callable[[], bool]) -> Made | None:
        """Return what is asked for; None if it is not waited for any more, which ``still`` says.

        An update with noise of this participant's own is made once and kept, and so is a masked or an encrypted one. Made anew after a
        crash it would have other noise, or other numbers under the same masks, and the two together tell more than either.
        """
        algorithm = self._training.plan.algorithm
        if secure_sum_of(algorithm) is not None:
            return self._masked(work, still)
        if encrypted_of(algorithm) is not None:
            return self._encrypted(work)
        if work["purpose"] != Purpose.TRAIN.value or not adds_noise(algorithm):
            sent, state = self._computed(work)
            return Made(to_pieces(sent, self._salt(work)), int(sent.weight), state)
        kept = self._keep.kept_update(self._run, work["round"], work["model"])
        if kept is None:
            kept = self._put(work, work["model"], *self._computed(work))
        return Made([kept], 1, {})  # whose noise is its own weighs 1

    def open(self, work: Mapping[str, Any]) -> None:
        """See a secure sum to its end once the masked update has been sent; nothing where there is none."""
        if self.opens:
            self._sums.open(self._place(work), lambda: True)

    def finish(self, still: Callable[[], bool], fail: Callable[[Mapping[str, Any], str], Any]) -> None:
        """See the secure sum to its end that a crash came between, as long as ``still`` says that nothing else is asked.

        This participant's masked update has been sent; ``fail`` tells why it does not help to open the sum, if it refuses.
        """
        place = self._sums.pending(self._run)
        try:
            if place is not None:
                self._sums.open(place, still)
        except (ProtocolError, FormatError) as error:
            assert place is not None, "what is refused is a sum"
            fail({"round": place.round, "purpose": place.purpose.value}, str(error))

    def end(self) -> None:
        """Drop what could still open a sum of a run that is over."""
        self._sums.end(self._run)

    def _masked(self, work: Mapping[str, Any], still: Callable[[], bool]) -> Made | None:
        place = self._place(work)
        value = self._fetched(work["model"], int(work["bytes"]))
        terms = terms_of(
            self._training.plan.algorithm, self._run, place.round, place.purpose, place.attempt, value=value, cohort=work["cohort"],
            roster=bytes.fromhex(work["roster"]), model=bytes.fromhex(work["model"]),
        )  # fmt: skip
        state, name = self._sums.prepared(place, terms, still), digest(f"{place} {work['model']}".encode())
        kept = self._keep.kept_update(self._run, place.round, name)
        if state is None or isinstance(state, Masked):
            return None if state is None or kept is None else Made([kept], 1, {})
        vector = terms.layout.zero()
        if kept is None:
            self._refuse_a_second_vector(place)
            with _unfit():
                sent, own = self._computed(work)
                encoding = Encoding(self._training.plan.algorithm, terms, state.cohort)
                vector = encoding.vector(sent, os.urandom(KEY_BYTES))
            after = self._sums.masked(state, vector)
            shapes = {metric: np.zeros(np.shape(sums)) for metric, sums in sent.metrics.items()}
            hidden = Payload({BODY: narrowed(vector.body, terms.layout.bits), TAIL: vector.tail}, np.float32(1), shapes)
            kept = self._put(work, name, hidden, own)
        else:  # a crash came between the file and the record
            after = self._sums.masked(state, vector)
        self._sums.write(place, after)
        return Made([kept], 1, {})

    def _refuse_a_second_vector(self, place: Place) -> None:
        """Raise ProtocolError if a vector has left for this sum, and what was remembered of that is gone."""
        if self._keep.answered(self._run, place.round, place.purpose.value) is not None:
            raise ProtocolError(
                f"Round {place.round} ({place.purpose.value}) was answered from this folder before, and what its states remember of "
                "secure sums is older than that: was it put back from a copy? A second answer could give the update away. Enrol "
                "anew in another folder."
            )

    def _encrypted(self, work: Mapping[str, Any]) -> Made:
        """Return an update that only the key holder can open, and only in a sum; made once for each attempt."""
        place = self._place(work)
        name = digest(f"{place} {work['model']}".encode())
        kept = self._keep.kept_update(self._run, place.round, name)
        if kept is None:
            value = self._fetched(work["model"], int(work["bytes"]))
            seal = self._seal.opened(self._training.plan.algorithm, place, value, int(work["cohort"]))
            with _unfit():
                sent, own = self._computed(work)
                sealed = seal(sent)
            kept = self._put(work, name, sealed, own)
        return Made([kept], 1, {})

    def _put(self, work: Mapping[str, Any], name: str, sent: Payload, state: Tree) -> bytes:
        """Return an update's file, which is on the disk from now on, and so is the state."""
        if tree.leaves(state):
            self._keep.stage(self._run, work["round"], state)
        file = b"".join(to_pieces(sent, self._salt(work)))
        self._keep.keep_update(self._run, work["round"], name, file)
        return file

    def _computed(self, work: Mapping[str, Any]) -> tuple[Payload, Tree]:
        """Return what the engine makes of this participant's examples, and the state to stage."""
        plan, number, purpose = self._training.plan, int(work["round"]), Purpose(work["purpose"])
        broadcast = self._fetched(work["model"], int(work["bytes"]))
        tasks = self._training.tasks_of(plan.data, np.array([0], np.int64), number)
        job = Job(purpose, number, int(work["cohort"]), broadcast, tasks)
        state: Tree = {}
        if purpose is Purpose.TRAIN:
            state = self._keep.state(self._run)
            if state is None:
                state = tree.map(lambda x: np.asarray(x)[None], initial_state(plan.algorithm, broadcast))
                if tree.leaves(state):  # one made anew after a crash could have another secret, so other noise
                    self._keep.begin(self._run, state)
        sent, new = self._engine.send(plan, job, state)
        return sent, new if purpose is Purpose.TRAIN else {}

    def _salt(self, work: Mapping[str, Any]) -> str:
        """Return what nobody else knows, and this participant knows again if it has to do the same work once more."""
        return digest(self._keep.key.sign(signed_text("salt", self._run, work["round"], work["purpose"])))

    def _fetched(self, name: str, size: int) -> Tree:
        """Return a model, fetched unless it is the last one."""
        if self._model[0] != name:
            self._model = ("", None)
            self._model = (name, unpack(self._connection.download(name, size)))
        return self._model[1]

    def _place(self, work: Mapping[str, Any]) -> Place:
        return Place(self._run, int(work["round"]), Purpose(work["purpose"]), int(work["attempt"]))


@contextmanager
def _unfit() -> Iterator[None]:
    """Turn what goes wrong with examples, an update or its weight into what nobody else is told of."""
    try:
        yield
    except (FleetError, StoreError):
        raise
    except KoinonError as error:
        raise Unfit(str(error)) from error
    except Exception as error:
        raise Unfit(f"{type(error).__name__}: {error}") from error


def adds_noise(algorithm: Algorithm) -> bool:
    """Return whether a client's own update carries noise that it draws itself."""
    return any(isinstance(step, Mechanism) and step.trust is not Trust.COORDINATOR for step in algorithm.channel)
