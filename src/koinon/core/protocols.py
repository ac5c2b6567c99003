"""The nouns as protocols: what each part must be able to do. No bodies, no base classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from koinon.core.types import Batch, Context, Metrics, Passes, RoundFacts, Task, Update, Variables
from koinon.core.wire import Wire
from koinon.tree import Array, Tree

C = TypeVar("C")


class Needs(Enum):
    """What an aggregator must see."""

    SUM = "sum"  # only sum(w * x) and sum(w)
    GROUPS = "the sums of groups"  # these two of each of some groups, drawn anew every round
    EACH = "each update"  # every single update


class Offers(Enum):
    """What a runtime can do beyond a round."""

    STREAM = "stream"
    CLIENT_STATE = "client state"
    COMPILED = "compiled"
    HANDSHAKE = "handshake"
    APART = "updates apart"  # more than one sum: those of groups, or every update


@runtime_checkable
class Model(Protocol):
    """What is trained. Pure: variables in, gradients or sums out."""

    @property
    def compiled(self) -> bool:
        """Whether grad and evaluate may run inside a compiled program."""

    def init(self, key: Array) -> Variables:
        """Return the first variables."""

    def grad(self, variables: Variables, batch: Batch) -> tuple[Tree, Tree, Metrics]:
        """Return the gradients of the masked mean loss, the new state, and metric sums."""

    def evaluate(self, variables: Variables, batch: Batch) -> Metrics:
        """Return metric sums of a batch, ``examples`` and ``loss`` among them."""

    def finish(self, sums: Metrics) -> dict[str, float]:
        """Turn summed metrics into the figures a person reads."""

    def check(self, data: Dataset) -> None:
        """Raise DataError or ModelError if the model cannot be trained on ``data``."""

    def computable_here(self) -> bool:
        """Return whether this process can compute it: its framework is there and set up for it."""

    def trained(self, variables: Variables) -> Any:
        """Return the model as its user knows it, with these variables."""

    def describe(self) -> Any:
        """Return what this model is as JSON: the same for the same architecture on any machine."""


@runtime_checkable
class Dataset(Protocol):
    """Clients and their examples. A client's examples are rows of shared arrays, training rows first."""

    @property
    def x(self) -> Tree:
        """Arrays ``[rows, ...]``."""

    @property
    def y(self) -> Tree:
        """Arrays ``[rows, ...]``."""

    @property
    def names(self) -> Sequence[str]:
        """The clients' names."""

    @property
    def has_held_out(self) -> bool:
        """Whether any client keeps examples for judging."""

    def __len__(self) -> int:
        """Return the number of clients."""

    def span(self, clients: Array, *, held_out: bool) -> tuple[Array, Array]:
        """Return where each client's examples start in :meth:`order`, and how many there are."""

    def order(self) -> Array:
        """Return the int32 row numbers, grouped by client."""

    def fingerprint(self) -> str:
        """Return a SHA-256 over everything in it."""


class ClientWork(Protocol[C]):
    """What a client does: a fold over its batches. Pure; no Python branch on values."""

    def passes(self) -> Passes:
        """Return how the examples are to be cut into batches."""

    def learning_rate_factor(self, round: int) -> float:
        """Return the factor on the learning rate for a round, counted from 1."""

    def init(self, variables: Variables) -> Tree:
        """Return what a client keeps between rounds before its first; ``{}`` if nothing."""

    def begin(self, task: Task, broadcast: Tree, state: Tree) -> C:
        """Return the carry before the first batch."""

    def step(self, model: Model, carry: C, batch: Batch) -> tuple[C, Metrics]:
        """Take one batch; return the carry and metric sums."""

    def finish(self, task: Task, broadcast: Tree, carry: C) -> tuple[Update, Tree]:
        """Return the update and what the client keeps."""


class Transform(Protocol):
    """One step of the channel between client and server."""

    def check(self, wire: Wire) -> Wire:
        """Map facts to facts before anything runs, or raise CompositionError."""

    def init(self, value: Tree) -> Tree:
        """Return the state a client keeps for this step, from an update's shape; ``{}`` if none."""

    def encode(self, value: Tree, state: Tree, context: Context) -> tuple[Tree, Tree]:
        """Return the payload and the new state; runs on the client."""

    def decode(self, payload: Tree, context: Context) -> Tree:
        """Return the value again; runs on the server."""

    def payload_bytes(self, sizes: Mapping[str, int], value_bytes: int) -> int:
        """Return the bytes on the wire for leaves of ``sizes`` numbers that took ``value_bytes``."""


@runtime_checkable
class Private(Protocol):
    """A step that makes the update private. Under one every client weighs 1: a weight of its own would escape it."""

    def check_algorithm(self, algorithm: Any) -> None:
        """Raise CompositionError where another part of the algorithm undoes what it protects."""


class Aggregator(Protocol):
    """How updates become one.

    ``needs`` says what ``finish`` is given. SUM: the exact int64 total and weight. GROUPS: those of every group that has
    any, ``[groups, ...]`` and ``[groups]``. EACH: float32 updates ``[clients, ...]``, int64 weights ``[clients]``.
    """

    needs: ClassVar[Needs]

    def values(self, cohort: int) -> int:
        """Return how many values it is given of ``cohort`` clients, or raise CompositionError if they are too few."""

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the aggregate in float64. The order of clients and groups must not matter."""


class Server(Protocol):
    """What the server does with an aggregate. Its state is a tree: a checkpoint is it written down."""

    def init(self, variables: Variables) -> Tree:
        """Return the first state."""

    def broadcast(self, state: Tree) -> Tree:
        """Return what every client is sent: ``params`` and ``state`` among it."""

    def apply(self, state: Tree, aggregate: Tree, facts: RoundFacts) -> Tree:
        """Return the next state."""

    def variables(self, state: Tree) -> Variables:
        """Return the model in the state."""


class Sampler(Protocol):
    """Who takes part in a round."""

    def cohort(self, population: int, key: Array) -> Array:
        """Return sorted int64 positions of the clients of one round."""

    def largest(self, population: int) -> int:
        """Return the largest cohort that may come."""


@runtime_checkable
class Budgeted(Protocol):
    """A part that may end the run: a privacy budget, a byte budget."""

    def exhausted(self, round: int) -> str | None:
        """Return why the given round may not begin, or None."""


class ClientStates(Protocol):
    """One row per client that ever took part; staged in the round, committed with it."""

    def read(self, clients: Array, initial: Tree) -> Tree:
        """Return the states of ``clients`` stacked ``[n, ...]``; ``initial`` for those who have none."""

    def stage(self, clients: Array, states: Tree) -> None:
        """Keep new rows, stacked in the order of ``clients``, until the round is committed."""
