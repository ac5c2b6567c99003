"""Worker processes: the same bits, and no hang and no loss when one dies."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

import apps
import koinon as kn
from koinon import keys, tree
from koinon.app import App, resolve
from koinon.core.execution import Plan
from koinon.core.types import Partial
from koinon.errors import ConfigurationError, ModelError, WorkerError
from koinon.round.client import initial_state
from koinon.runtimes.processes import Processes, _chunks


@pytest.fixture(scope="module")
def team() -> Iterator[Processes]:
    with Processes(2) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def plan() -> Plan:
    return resolve(App(model=apps.model(), clients=apps.clients(), algorithm=apps.algorithm())).plan


def one_round(runtime: kn.Local | Processes, plan: Plan) -> Partial:
    program = resolve(App(model=plan.model, clients=plan.data, algorithm=plan.algorithm)).program()
    state = program.init(runtime.initial(plan, program.initial_key()))
    job = program.next(state, 0.0)
    return runtime.round(plan, job, initial_state(plan.algorithm, job.broadcast))


def test_chunks_are_neighbours_of_about_equal_work() -> None:
    steps = np.array([1, 1, 1, 9, 1, 1, 1, 1, 1, 1])
    chunks = _chunks(steps, 3)
    np.testing.assert_array_equal(np.concatenate(chunks), np.arange(10))
    assert max(steps[chunk].sum() for chunk in chunks) <= 12
    assert [len(chunk) for chunk in _chunks(np.array([4]), 8)] == [1]
    assert [len(chunk) for chunk in _chunks(np.array([], int), 8)] == [0]


def test_a_killed_worker_is_replaced_and_the_round_is_the_same(team: Processes, plan: Plan) -> None:
    whole = one_round(team, plan)
    victim = team._team[1]._process
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    again = one_round(team, plan)
    assert tree.digest(again.total) == tree.digest(whole.total)
    np.testing.assert_array_equal(again.rows.clients, whole.rows.clients)
    assert team._team[1]._process.pid != victim.pid


def test_a_worker_killed_while_it_computes_is_replaced(team: Processes, plan: Plan) -> None:
    whole = one_round(team, plan)
    os.kill(team._team[0]._process.pid, signal.SIGSTOP)  # it will be waited for ...
    victim = team._team[0]._process

    import threading

    threading.Timer(0.3, lambda: os.kill(victim.pid, signal.SIGKILL)).start()  # ... until it dies
    assert tree.digest(one_round(team, plan).total) == tree.digest(whole.total)


def die(params, data, task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_always_dies_is_an_error_that_says_how() -> None:
    loop = kn.OwnLoop(params={"w": np.zeros(2)}, train=die)
    with pytest.raises(WorkerError, match="was killed by signal 9"):
        kn.fit(loop, apps.clients(2), runtime="processes", workers=1, progress=False)


def sleep(params, data, task):
    time.sleep(60)


def test_a_worker_that_hangs_is_stopped() -> None:
    loop = kn.OwnLoop(params={"w": np.zeros(2)}, train=sleep)
    plan = resolve(App(model=loop, clients=apps.clients(2))).plan
    with (
        Processes(1, "reference", seconds=4.0) as runtime,
        pytest.raises(WorkerError, match="did not answer within 4 s"),
    ):
        one_round(runtime, plan)


def wrong(params, x, y):
    raise ModelError("the third layer is missing")


def test_an_error_in_a_worker_comes_back_as_itself_with_its_traceback(plan: Plan) -> None:
    model = kn.FunctionModel(apps.init, wrong)
    broken = Plan(plan.algorithm, model, plan.data)
    with Processes(1) as runtime, pytest.raises(ModelError, match="third layer") as caught:
        program = resolve(App(model=apps.model(), clients=plan.data, algorithm=plan.algorithm)).program()
        state = program.init(runtime.initial(broken, program.initial_key()))
        job = program.next(state, 0.0)
        runtime.round(broken, job, initial_state(plan.algorithm, job.broadcast))
    assert "in wrong" in "".join(caught.value.__notes__)


def test_first_variables_come_from_the_worker(team: Processes, plan: Plan) -> None:
    variables = team.initial(plan, keys.root(3))
    assert tree.digest(variables) == tree.digest(kn.Local().initial(plan, keys.root(3)))


def test_more_plans_than_are_kept_still_run(plan: Plan) -> None:
    with Processes(1, "reference") as runtime:
        for _ in range(66):
            runtime.initial(Plan(plan.algorithm, plan.model, plan.data), keys.root(0))
        assert len(runtime._plans) == 64


def test_close_twice_and_no_process_is_left(plan: Plan) -> None:
    runtime = Processes(2)
    one_round(runtime, plan)
    workers = [member._process for member in runtime._team]
    runtime.close()
    runtime.close()
    assert all(worker.poll() is not None for worker in workers)


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_is_refused(workers: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        Processes(workers)
