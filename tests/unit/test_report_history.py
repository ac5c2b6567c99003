"""A history is an immutable sequence of rounds that reads as rows, columns and a frame."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError

import pytest
from report_samples import history, record

from koinon.core.events import RoundRecord
from koinon.errors import ConfigurationError, KoinonError, UnsupportedError
from koinon.report.figures import headline, metrics
from koinon.report.history import History


def test_a_history_is_a_sequence_whose_slices_are_histories() -> None:
    rounds = history(6)
    assert len(rounds) == 6
    assert [r.round for r in rounds] == [1, 2, 3, 4, 5, 6]
    assert rounds[-1].round == 6
    assert isinstance(rounds[2:4], History)
    assert [r.round for r in rounds[2:4]] == [3, 4]


def test_a_history_cannot_be_changed() -> None:
    records = [record(1)]
    rounds = History(records)
    records.append(record(2))
    assert len(rounds) == 1
    with pytest.raises(FrozenInstanceError):
        rounds.records = ()  # type: ignore[misc]


def test_rows_are_the_records_as_json() -> None:
    assert history(3).rows() == [r.to_json() for r in history(3)]


def test_a_column_has_only_the_rounds_that_have_the_figure() -> None:
    judged_twice = History([record(1), RoundRecord(2, 4, {}, {"train_loss": 0.5}, 0.1), record(3)])
    assert [number for number, _ in judged_twice.column("accuracy")] == [1, 3]
    assert [number for number, _ in judged_twice.column("train_loss")] == [1, 2, 3]
    assert judged_twice.column("seconds") == [(1, 0.625), (2, 0.1), (3, 0.021)]


def test_an_unknown_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'accuracy'"):
        history(2).column("acuracy")


def test_a_frame_holds_the_rows() -> None:
    pytest.importorskip("pandas")
    frame = history(3).frame()
    assert list(frame["round"]) == [1, 2, 3]
    assert list(frame["loss"]) == [value for _, value in history(3).column("loss")]
    assert "Switzerland" in frame["refused"][2]


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UnsupportedError, match=r"koinon\[pandas\]") as caught:
        history(1).frame()
    assert isinstance(caught.value, KoinonError)


def test_a_history_reads_well() -> None:
    assert repr(History()) == "History(rounds=0, seconds=0.00)"
    assert repr(history(1)).startswith("History(rounds=1, seconds=0.62, loss=0.69")
    assert "The last 20 of 25 rounds" in history(25)._repr_html_()


@pytest.mark.parametrize(
    ("figures", "names"),
    [
        ({"train_loss": 1.0, "train_accuracy": 0.5}, ["train_loss", "train_accuracy"]),
        ({"train_loss": 1.0, "test_loss": 1.1, "test_auc": 0.5}, ["test_loss", "test_auc"]),
        ({"train_loss": 1.0, "loss": 1.1, "auc": 0.5, "auc_worst": 0.4}, ["loss", "auc", "auc_worst"]),
        ({}, []),
    ],
)
def test_the_headline_takes_the_best_judge_there_is(figures: dict[str, float], names: list[str]) -> None:
    assert [name for name, _ in headline(figures)] == names


def test_a_metric_whose_own_name_ends_like_a_summary_stays_a_metric() -> None:
    assert metrics(["loss", "best_worst"]) == ("loss", "best_worst")
