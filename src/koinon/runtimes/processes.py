"""Persistent worker processes, one core each: the cohort is cut by summed steps and merged in order.

Workers are started as programs of their own, by the same interpreter, so this works from a
script without a ``__main__`` guard and from a notebook. Plans travel once, arrays in shared memory.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np

from koinon import tree
from koinon.channel.secure_sum import by_messages
from koinon.core.algorithm import Algorithm
from koinon.core.execution import Plan
from koinon.core.protocols import Offers
from koinon.core.types import Job, Partial, Purpose, Variables
from koinon.engines.catalogue import ENGINES
from koinon.errors import ConfigurationError, KoinonError, WorkerError
from koinon.round.batches import step_counts
from koinon.round.evaluation import EVALUATION
from koinon.round.hidden import void_draw
from koinon.round.settle import grouped, merge
from koinon.runtimes.environment import settings
from koinon.runtimes.parcel import Parcel, receive, send
from koinon.runtimes.worker import Begin, Compute, Failed, Forget, Prepare
from koinon.tree import Array, Tree

_WORTH_SHARING = 0.004  # seconds of one worker's time, below which a second worker costs more than it saves


class Processes:
    """``workers`` processes (one per core unless given), each with one computing thread.

    ``seconds`` is how long one chunk of a round may take before the worker counts as hung. A worker that
    dies is replaced once per round and its chunk computed again: nothing of it had been added.
    """

    offers = frozenset({Offers.CLIENT_STATE, Offers.COMPILED, Offers.APART, Offers.HANDSHAKE})

    def __init__(self, workers: int | None = None, engine: str = "jax", *, seconds: float = 3600.0) -> None:
        count = cores() if workers is None else workers
        if count < 1:
            raise ConfigurationError(f"Processes.workers must be at least 1; found {workers!r}.")
        if engine not in ENGINES:
            raise ConfigurationError(f"There is no engine {engine!r}. The engines are {', '.join(ENGINES)}.")
        self.engine = engine
        self.workers = count
        self._seconds = seconds
        self._team: list[_Member] = []
        self._plans: dict[int, tuple[int, Plan]] = {}
        self._made = 0
        self._pace: dict[tuple[int, Purpose], float] = {}

    def initial(self, plan: Plan, key: Array) -> Variables:
        """Return the model's first variables, from the first worker."""
        number = self._number(plan)

        def ask(member: _Member) -> None:
            self._prepare(member, number, plan)
            member.send(Begin(number, key))

        variables: Variables = _raise_failure(self._asked(0, ask))
        return variables

    def round(self, plan: Plan, job: Job, states: Tree) -> Partial:
        """Return the round's total; every chunk's integers are added in chunk order."""
        if (void := void_draw(plan.algorithm, job)) is not None:
            return void
        number = self._number(plan)
        job = grouped(_algorithm(plan, job).aggregator, job)
        steps = _steps(plan, job)
        work = max(1.0, float(steps.sum()))
        first = (number, job.purpose) not in self._pace
        shared = first or self._pace[number, job.purpose] * work > _WORTH_SHARING
        shared = shared and not by_messages(plan.algorithm)
        chunks = _chunks(steps, self.workers if shared else 1)
        broadcast = Parcel(job.broadcast)
        try:
            partials, seconds = self._compute(number, plan, job, states, chunks, broadcast)
        finally:
            broadcast.close()
        self._pace[number, job.purpose] = np.inf if first else seconds * len(chunks) / work  # a first round compiles
        return merge(partials)

    def close(self) -> None:
        """Stop every worker. Safe to call twice."""
        team, self._team = self._team, []
        for member in team:
            member.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _compute(
        self, number: int, plan: Plan, job: Job, states: Tree, chunks: Sequence[Array], broadcast: Parcel
    ) -> tuple[list[Partial], float]:
        light = replace(job, broadcast={}, following=None)
        began = time.perf_counter()

        def ask(chunk: Array, member: _Member) -> None:
            self._prepare(member, number, plan)
            own = tree.map(lambda x: x[chunk], states) if tree.leaves(states) else states
            member.send(Compute(number, light.chunk(chunk), own))
            member.send_parcel(broadcast)

        try:
            lost = self._sent(ask, chunks)
            if job.following is not None:
                job.following()  # remembered by whoever made the job; the workers are busy anyway
            answers = [
                self._asked(i, partial(ask, chunk), attempts=1) if i in lost else self._answer(i, partial(ask, chunk))
                for i, chunk in enumerate(chunks)
            ]
        except BaseException:
            self.close()  # answers nobody waits for any more may still come
            raise
        for answer in answers:
            _raise_failure(answer)
        return answers, time.perf_counter() - began

    def _sent(self, ask: Callable[[Array, _Member], None], chunks: Sequence[Array]) -> set[int]:
        """Start every worker, then ask every one; return the places of those that were dead already."""
        for place in range(len(chunks)):
            self._member(place)
        lost = set()
        for place, chunk in enumerate(chunks):
            try:
                ask(chunk, self._team[place])
            except OSError:
                self._replace(place)
                lost.add(place)
        return lost

    def _answer(self, place: int, again: Callable[[_Member], None]) -> Any:
        """Return what a worker that was asked answers; if it died over it, what its successor does."""
        try:
            return self._team[place].answer()
        except (EOFError, OSError) as error:
            self._hung(place, error)
        self._replace(place)
        return self._asked(place, again, attempts=1)

    def _asked(self, place: int, ask: Callable[[_Member], None], attempts: int = 2) -> Any:
        """Return the answer of one worker to one question; a worker that dies over it is replaced once."""
        member = self._member(place)
        try:
            ask(member)
            return member.answer()
        except (EOFError, OSError) as error:
            self._hung(place, error)
            if attempts > 1:
                self._replace(place)  # its socket may close a moment before the system calls it dead
                return self._asked(place, ask, attempts - 1)
            raise WorkerError(f"Worker {place} {member.ending()}. {_ADVICE}") from error

    def _hung(self, place: int, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            self._team[place].stop()
            raise WorkerError(
                f"Worker {place} did not answer within {self._seconds:g} s and was stopped. "
                "Give Processes(seconds=...) more time, or make the round smaller."
            ) from error

    def _number(self, plan: Plan) -> int:
        """Return the plan's number; the plan is held, so its id stays its own."""
        if id(plan) not in self._plans:
            if len(self._plans) >= 64:
                self._drop(next(iter(self._plans)))
            self._made += 1
            self._plans[id(plan)] = (self._made, plan)
        return self._plans[id(plan)][0]

    def _drop(self, identity: int) -> None:
        number, _ = self._plans.pop(identity)
        for member in self._team:
            if number in member.prepared:
                member.prepared.discard(number)
                member.tell(Forget(number))

    def _prepare(self, member: _Member, number: int, plan: Plan) -> None:
        if number not in member.prepared:
            member.tell(Prepare(number, plan))
            member.prepared.add(number)

    def _member(self, place: int) -> _Member:
        while len(self._team) <= place:
            self._team.append(_Member(self.engine, self._seconds))
        if not self._team[place].alive():
            self._replace(place)
        return self._team[place]

    def _replace(self, place: int) -> None:
        self._team[place].stop()
        self._team[place] = _Member(self.engine, self._seconds)


_ADVICE = (
    "If the system ran out of memory, use fewer workers; otherwise run the same line again: "
    "a run with out=... continues after its last round."
)


class _Member:
    """One worker process and the socket to it."""

    def __init__(self, engine: str, seconds: float) -> None:
        here, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from koinon.runtimes.worker import main; main()", str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else None,
                env=_environment(),
            )
        here.settimeout(seconds)
        self._socket = here
        self.prepared: set[int] = set()
        self._owed = 0  # acknowledgements not yet read
        self._finalizer = weakref.finalize(self, _stop, self._process, here)
        self.tell(engine)

    def alive(self) -> bool:
        return self._process.poll() is None

    def tell(self, value: Any) -> None:
        """Send what is only acknowledged; a failure shows at the next answer."""
        self.send(value)
        self._owed += 1

    def send(self, value: Any) -> None:
        send(value, self._socket)

    def send_parcel(self, parcel: Parcel) -> None:
        parcel.send(self._socket)

    def answer(self) -> Any:
        while self._owed:
            _raise_failure(receive(self._socket))
            self._owed -= 1
        return receive(self._socket)

    def ending(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"

    def stop(self) -> None:
        self._finalizer()


def _stop(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    """Close the connection, upon which an idle worker ends by itself, and see the process off."""
    connection.close()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment() -> dict[str, str]:
    """Return a worker's environment: one thread, the JAX backend of Keras, and this process's import path."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**settings(os.environ), "KERAS_BACKEND": "jax", "PYTHONPATH": path}


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _steps(plan: Plan, job: Job) -> Array:
    data = plan.test if job.purpose is Purpose.TEST else plan.data
    assert data is not None, "a job to test without test data"
    _, counts = data.span(job.tasks.clients, held_out=job.purpose is Purpose.EVALUATE)
    return step_counts(_algorithm(plan, job).work.passes(), counts)


def _algorithm(plan: Plan, job: Job) -> Algorithm:
    return plan.algorithm if job.purpose is Purpose.TRAIN else EVALUATION


def _chunks(steps: Array, workers: int) -> list[Array]:
    """Return runs of neighbouring tasks of about equal work; at least one, none empty unless all are."""
    done = np.cumsum(np.maximum(steps, 1)) - np.maximum(steps, 1) / 2
    total = float(np.maximum(steps, 1).sum())
    place = np.minimum((done * workers / max(total, 1.0)).astype(np.int64), workers - 1)
    chunks = [np.nonzero(place == i)[0] for i in range(workers)]
    return [chunk for chunk in chunks if len(chunk)] or [np.arange(len(steps))]


def _raise_failure(answer: Any) -> Any:
    if not isinstance(answer, Failed):
        return answer
    answer.error.add_note(f"In a worker process:\n{answer.trace}")
    if isinstance(answer.error, KoinonError):
        raise answer.error
    raise WorkerError(f"A worker failed: {type(answer.error).__name__}: {answer.error}") from answer.error
