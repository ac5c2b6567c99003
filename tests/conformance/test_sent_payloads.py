"""What one client sends is, decoded and added, what the engine adds for it: deployment computes the simulation."""

from dataclasses import replace

import numpy as np
import pytest

import apps
import koinon as kn
from koinon import exact, tree
from koinon.app import App, resolve
from koinon.core.protocols import Model
from koinon.core.types import Job, Purpose
from koinon.engines.catalogue import ENGINES, engine
from koinon.round.client import decode, initial_state

CHANNELS = {
    "plain": (),
    "clip and int8": (kn.Clip(1.0), kn.Quantise()),
    "int8 in blocks": (kn.Quantise(block=5),),
    "bfloat16": (kn.Bfloat16(),),
}


QUICK = [(kn.fedavg, channel) for channel in CHANNELS] + [(kn.scaffold, "clip and int8")]
LONGER = [pytest.param(kn.scaffold, name, marks=pytest.mark.slow) for name in CHANNELS if name != "clip and int8"]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("make", "channel"), [*QUICK, *LONGER])
def test_a_decoded_payload_adds_up_to_the_engines_total(name: str, channel: str, make) -> None:
    algorithm = make(kn.sgd(0.3), epochs=2, batch_size=8, channel=CHANNELS[channel])
    resolved = resolve(App(model=apps.model(), clients=apps.clients(), algorithm=algorithm, engine=name))
    program, plan = resolved.program(), resolved.plan
    assert isinstance(plan.model, Model)
    state = program.init(plan.model.init(program.initial_key()))
    job = program.next(state, 0.0)
    assert isinstance(job, Job) and job.purpose is Purpose.TRAIN
    new = engine(name)
    for place in range(len(job.tasks)):
        one = job.chunk(np.array([place]))
        first = tree.map(lambda x: np.asarray(x)[None], initial_state(algorithm, job.broadcast))
        partial = new.run(plan, one, first)
        sent, kept = new.send(plan, one, first)
        value = tree.map(np.asarray, decode(algorithm, sent.value, one.tasks.keys[0], np.float32(job.cohort)))
        total = exact.zero(value)
        exact.accumulate(total, value, int(sent.weight))
        assert tree.digest(total) == tree.digest(partial.total)
        assert tree.digest(kept) == tree.digest(partial.states)
        assert {n: x.tolist() for n, x in sent.metrics.items()} == {
            n: x[0].tolist() for n, x in partial.rows.metrics.items()
        }


@pytest.mark.parametrize("name", ENGINES)
def test_an_evaluation_sends_metrics_and_no_update(name: str) -> None:
    resolved = resolve(App(model=apps.model(), clients=apps.clients(), algorithm=apps.algorithm(), engine=name))
    program, plan = resolved.program(), resolved.plan
    state = replace(program.init(plan.model.init(program.initial_key())), phase=Purpose.EVALUATE)
    job = program.judge(state).chunk(np.array([1]))
    sent, _ = engine(name).send(plan, job, {})
    assert tree.leaves(sent.value) == [] and float(sent.metrics["examples"]) == 7
