"""DP-SGD on the client: what it sends is private for each of its examples, whoever reads it.

Every example's gradient is clipped, their sum gets Gaussian noise from the client's own secret, and only then does a step
follow. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, algorithm 1.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from koinon import tree
from koinon.core.protocols import Model
from koinon.core.ranges import positive
from koinon.core.types import Batch, Metrics, Passes, Task, Update, Variables
from koinon.errors import CompositionError, ConfigurationError
from koinon.privacy.accounted import Accounted
from koinon.privacy.budget import DELTA
from koinon.privacy.mechanism import Event, Trust
from koinon.privacy.sampling import Participation, Sampling
from koinon.privacy.statement import PrivacyStatement, statement
from koinon.tree import Array, Tree
from koinon.work.corrections import Correction
from koinon.work.optimizers import Optimizer, Sgd
from koinon.work.private_batches import PoissonBatches, PrivateBatches
from koinon.work.schedules import Constant, LearningRateSchedule, check_schedule
from koinon.work.secret_noise import SECRET_WORDS, Draw, normals, secret_for, words

DROPPED = "dropped"
"""The metric sum of examples whose gradient was not finite and which were left out."""


@runtime_checkable
class ExampleGradients(Protocol):
    """A model that tells its examples apart."""

    def clipped_gradient(self, variables: Variables, batch: Batch, norm: Array) -> tuple[Tree, Metrics]:
        """Return the sum of the examples' gradients, each scaled to an L2 norm of at most ``norm``, and metric sums.

        An example whose gradient is not finite adds nothing, whatever is in it, and is counted as ``DROPPED``.
        """


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """Local training whose every step is private for a single example (DP-SGD).

    ``norm`` is the clipping norm of one example's gradient, ``multiplier`` the noise's standard deviation over it.
    ``batches`` says which examples a step takes and what that costs: :class:`PoissonBatches` or
    :class:`ShuffledBatches`. The noise comes from a secret of the client's own, 256 bits of the operating system's
    generator, which is part of the state it keeps and is replaced in every round. ``test_seed`` makes it from a number
    instead: for tests, and no guarantee.
    """

    norm: float = 1.0
    multiplier: float = 1.0
    batches: PrivateBatches = field(default_factory=PoissonBatches)
    optimizer: Optimizer = field(default_factory=Sgd)
    corrections: tuple[Correction, ...] = ()
    schedule: LearningRateSchedule = field(default_factory=Constant)
    test_seed: int | None = None

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        positive(self, "norm", "multiplier")
        if not hasattr(self.batches, "summed"):
            raise ConfigurationError(
                f"PrivateTraining.batches is PoissonBatches(...) or ShuffledBatches(...); found {self.batches!r}."
            )

    def passes(self) -> Passes:
        """Return the batches asked for."""
        return self.batches.passes()

    def learning_rate_factor(self, round: int) -> float:
        """Return the schedule's factor."""
        return self.schedule.factor(round)

    def init(self, variables: Variables) -> Tree:
        """Return a new secret. Clients that begin together in one process share it; their streams differ by task."""
        if self.test_seed is None:
            found = os.urandom(4 * SECRET_WORDS)
        else:
            found = hashlib.sha256(f"koinon test work {self.test_seed}".encode()).digest()
        return {"secret": np.frombuffer(found, np.uint32).copy()}

    def begin(self, task: Task, broadcast: Tree, state: Tree) -> dict[str, Any]:
        """Return the global model, a fresh optimiser, and what tells this task's noise from every other."""
        params, secret = broadcast["params"], state["secret"]
        xp = tree.namespace(secret)
        first = xp.zeros((), xp.uint32)
        asked = {**{name: broadcast[name] for name in ("params", "state")}, "rate": task.learning_rate * xp.ones(1)}
        carry = {
            "params": params,
            "state": broadcast["state"],
            "optimizer": self.optimizer.init(params),
            "rate": task.learning_rate,
            "expected": task.examples * xp.float32(1),
            "secret": secret_for(secret, task.key, asked),
            "next": words(secret, task.key, first, Draw.RATCHET, SECRET_WORDS),
            "key": task.key,
            "turn": first,
        }
        return {**carry, "anchor": params} if self.corrections else carry

    def step(self, model: Model, carry: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Metrics]:
        """Take one private step."""
        if not isinstance(model, ExampleGradients):
            raise CompositionError(
                f"{type(self).__name__} clips the gradient of every single example, which {type(model).__name__} does "
                "not give. Use a Keras model or a FunctionModel, or add clipped_gradient() to your own."
            )
        params, stream = carry["params"], (carry["secret"], carry["key"], carry["turn"])
        variables = {"params": params, "state": carry["state"]}
        total, metrics = self.batches.summed(
            lambda taken: model.clipped_gradient(variables, taken, self.norm), batch, *stream
        )
        noise = self._noise(total, *stream)
        share = 1 / self.batches.expected(carry["expected"])
        gradients = tree.map(lambda g, n: (g + n) * share, total, noise)
        for correction in self.corrections:
            gradients = correction.correct(gradients, params, carry["anchor"])
        params, optimizer = self.optimizer.apply(params, gradients, carry["optimizer"], carry["rate"])
        turn = carry["turn"] + tree.namespace(carry["turn"]).ones_like(carry["turn"])
        return {**carry, "params": params, "optimizer": optimizer, "turn": turn}, metrics

    def finish(self, task: Task, broadcast: Tree, carry: dict[str, Any]) -> tuple[Update, Tree]:
        """Return the change of the model, weighted by the client's examples, and a secret that gives no noise away."""
        value = {name: tree.subtract(carry[name], broadcast[name]) for name in ("params", "state")}
        return Update(value, task.examples), {"secret": carry["next"]}

    @property
    def trust(self) -> Trust:
        """Return that nobody is trusted."""
        return Trust.NOBODY

    @property
    def sampling(self) -> str:
        """How examples come to be in a step."""
        return self.batches.sampling

    @property
    def releases(self) -> int:
        """How many releases of an example a round makes."""
        return self.batches.releases()

    @property
    def secret(self) -> bool:
        """Whether nobody can make the noise again."""
        return self.test_seed is None

    def event(self, participation: Participation) -> Event:
        """Return what one release costs an example; how its client is drawn is not counted."""
        return self.batches.event(self.multiplier)

    def statement(self, rounds: int, delta: float = DELTA) -> PrivacyStatement:
        """Return what a client that is in each of ``rounds`` rounds promises every example of its own.

        Needs ``koinon[privacy]``. How many examples a client has is taken as known to all.
        """
        always = Participation(Sampling.EVERYBODY, 1.0)
        return statement(Accounted(self, always, self.event(always)), rounds, delta)

    def _noise(self, like: Tree, secret: Array, key: Array, turn: Array) -> Tree:
        count = tree.size(like)
        flat = normals(words(secret, key, turn, Draw.NOISE, count + count % 2)) * (self.norm * self.multiplier)
        place = 0

        def taken(leaf: Array) -> Array:
            nonlocal place
            size = int(np.prod(np.shape(leaf)))
            place += size
            return flat[place - size : place].reshape(np.shape(leaf))

        return tree.map(taken, like)
