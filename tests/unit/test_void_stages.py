"""What a run makes of training or an evaluation that has no result: it goes on, it says why, and nothing is taken back."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

import koinon as kn
import linear
from koinon import tree
from koinon.core.events import RoundFinished, RoundRecord, RunStarted
from koinon.core.execution import Plan
from koinon.core.types import Partial, Purpose, Rows
from koinon.errors import ConfigurationError
from koinon.privacy.random_bits import PrivacyKeys
from koinon.privacy.releases import releases
from koinon.report.history import History
from koinon.report.page import write_page
from koinon.report.progress import PlainProgress
from koinon.report.summary import RunSummary
from koinon.round.judges import left_out
from koinon.round.training import Evaluation, FederatedTraining, State
from koinon.testing.models import SoftmaxRegression
from koinon.testing.samples import classified

HIDDEN = kn.fedavg(kn.sgd(0.05), batch_size=4, channel=(kn.Clip(1.0), kn.SecureSum()))
SIZES = (1, 8, 1, 12, 1)  # of these two hold examples out
SILENT = "nice fell silent before the sum was opened"


def fit(stop: kn.Stop, **fields) -> kn.Run:
    given = {"algorithm": HIDDEN, "engine": "reference", "progress": False, **fields}
    return kn.fit(linear.LinearModel(), linear.clients(SIZES), stop=stop, **given)


def void(state: State, program: FederatedTraining) -> State:
    """Return the state after a stage of which nothing is known."""
    leaves = tree.names(state.server) if state.phase is Purpose.TRAIN else ()
    bare = Rows(np.zeros(0, np.int64), np.zeros(0, np.float32), {}, np.zeros((0, len(leaves)), bool), leaves)
    return program.absorb(state, Partial({}, 0, replace(bare, lost={1: "void", 2: "gone"}, pooled={}, void=SILENT)))


def test_an_evaluation_of_too_few_is_left_out_and_the_run_goes_on() -> None:
    run = fit(kn.Stop(rounds=4))
    assert run.rounds == 4
    assert all(set(record.figures) == {"train_loss"} for record in run.history)
    (why,) = {record.void["evaluate"] for record in run.history}
    assert why == "SecureSum() adds up at least 3 clients, and 2 hold examples out: nobody judges the model"
    same = fit(kn.Stop(rounds=4), algorithm=kn.replace(HIDDEN, channel=(kn.Clip(1.0),)))
    assert all("loss" in record.figures for record in same.history), "in the clear two may judge"


def test_so_is_one_to_which_too_few_are_asked() -> None:
    data = classified()
    assert left_out(HIDDEN, data, None) is None
    assert left_out(HIDDEN, data, 3) is None
    assert (
        left_out(HIDDEN, data, 2) == "SecureSum() adds up at least 3 clients, and 2 may judge: nobody judges the model"
    )
    assert left_out(kn.fedavg(kn.sgd(0.1)), data, 2) is None


def test_the_server_still_judges_what_clients_cannot() -> None:
    x, y = linear.clients((4,))["site-0"]
    run = fit(kn.Stop(rounds=2), test=(x, y))
    assert all({"train_loss", "test_loss"} == set(record.figures) for record in run.history)


def test_patience_watches_the_training_loss_where_nobody_can_judge() -> None:
    run = fit(kn.Stop(rounds=50, patience=2, minimum_change=100.0))
    assert (run.rounds, run.stopped[:9]) == (3, "converged")


@pytest.mark.parametrize("stop", [kn.Stop(target=("loss", 0.1)), kn.Stop(monitor="accuracy_worst")])
def test_a_run_that_would_end_by_a_figure_that_nobody_will_know_does_not_begin(stop: kn.Stop) -> None:
    with pytest.raises(ConfigurationError, match="Stop watches '(loss|accuracy_worst)', a figure .* and watch 'test_"):
        fit(stop)


def test_the_reason_is_said_once() -> None:
    said = StringIO()
    progress = PlainProgress(said)
    progress(RunStarted("fedavg", 5, 4, 0))
    judges = {"evaluate": "too few\x1b[2J judge"}
    for round, reasons in enumerate((judges, judges, {**judges, "train": SILENT}, {"train": SILENT}), 1):
        progress(RoundFinished(RoundRecord(round, 5, {}, {}, 0.1, void=reasons)))
    lines = [line for line in said.getvalue().splitlines() if line.startswith("  no")]
    assert lines[0].startswith("  no evaluation: too few")
    assert "\x1b" not in lines[0]
    assert lines[1:] == [f"  no update: {SILENT}"] * 2, "every round that is lost is told"


def test_the_report_has_it_with_its_rounds(tmp_path: Path) -> None:
    records = [
        RoundRecord(i, 5, {}, {}, 0.1, void={"evaluate": "too <few>"} if i < 4 else {"train": SILENT})
        for i in range(1, 6)
    ]
    assert [RoundRecord.from_json(record.to_json()) for record in records] == records
    run = RunSummary(title="run", history=History(records), stopped="rounds", digest="0", seconds=1.0)
    write_page(tmp_path / "report.html", run)
    page = (tmp_path / "report.html").read_text()
    for cell in ("1 to 3", "too &lt;few&gt;", "4 to 5", SILENT):
        assert f">{cell}</td>" in page


def program(channel, **fields) -> FederatedTraining:
    algorithm = kn.fedavg(kn.sgd(0.3), channel=channel)
    return FederatedTraining(Plan(algorithm, SoftmaxRegression(), classified()), kn.Stop(), Evaluation(), 1, **fields)


def test_a_void_round_leaves_the_model_and_is_judged_all_the_same() -> None:
    own = program((kn.Clip(1.0), kn.SecureSum()))
    state = own.init(SoftmaxRegression().init(np.zeros(2, np.uint32)))
    after = void(state, own)
    assert tree.digest(after.server) == tree.digest(state.server)
    assert (after.round, after.phase, after.void) == (1, Purpose.EVALUATE, {"train": SILENT})
    after = void(after, own)
    assert (after.phase, after.void) == (Purpose.TRAIN, {"train": SILENT, "evaluate": SILENT})
    record = own.record(after, 1.0)
    assert record.cohort == 2
    assert dict(record.lost) == {"client-1": "void", "client-2": "gone"}
    assert record.void == after.void


@pytest.mark.parametrize("stop", [kn.Stop(target=("loss", 0.1)), kn.Stop(monitor="accuracy"), kn.Stop(patience=1)])
def test_a_void_evaluation_is_not_watched(stop: kn.Stop) -> None:
    """Otherwise the training loss would be taken for the held-out one, or a figure that is named be an error."""
    own = replace(program((kn.Clip(1.0), kn.SecureSum())), stop=stop)
    state = State(3, {}, phase=Purpose.EVALUATE, figures={"train_loss": 0.0}, rows=classified_rows())
    assert void(state, own).watch == state.watch


def classified_rows() -> Rows:
    return Rows(np.arange(3), np.ones(3, np.float32), {}, np.ones((3, 0), bool), (), pooled={})


def test_the_ledger_keeps_what_a_void_round_was_charged_and_nothing_is_released() -> None:
    sampler = kn.Poisson(0.5)
    algorithm = kn.fedavg(
        kn.sgd(0.3), channel=(kn.Clip(1.0), kn.SecureSum(), kn.GaussianNoise(multiplier=1.0)), cohort=sampler
    )
    plan = Plan(algorithm, SoftmaxRegression(), classified())
    door = releases(plan, lambda: PrivacyKeys.of_test(1), None, None)
    own = FederatedTraining(plan, kn.Stop(), Evaluation(), 1, releases=door)
    state = own.init(SoftmaxRegression().init(np.zeros(2, np.uint32)))
    own.next(state, 0.0)
    assert door.charged == 1
    after = void(state, own)
    assert tree.digest(after.server) == tree.digest(state.server), "a release of noise alone would change it"
    own.next(replace(after, phase=Purpose.TRAIN), 0.0)
    assert door.charged == 2
