"""A watch is a fold over the rounds' figures: pure, and the same whether a run was interrupted or not."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from koinon.metrics import lower_is_better
from koinon.round.stopping import Stop, Watch

figure = st.sampled_from([0.05, 0.1, 0.12, 0.5, 0.55, 0.8, 0.9, 1.0, math.nan])  # few, so that some come twice
histories = st.lists(
    st.fixed_dictionaries({"loss": figure, "accuracy": figure, "train_loss": figure}), min_size=1, max_size=15
)
stops = st.builds(
    Stop,
    patience=st.one_of(st.none(), st.integers(1, 4)),
    minimum_change=st.sampled_from([0.0, 0.05, 0.3]),
    monitor=st.sampled_from([None, "loss", "accuracy"]),
    target=st.sampled_from([None, ("accuracy", 0.9), ("loss", 0.1)]),
)


def watched(stop: Stop, history: list[dict[str, float]], watch: Watch | None = None, first: int = 1) -> list[Watch]:
    out, watch = [], watch or Watch()
    for round, figures in enumerate(history, first):
        watch = watch.seen(stop, round, figures)
        out.append(watch)
    return out


@given(stops, histories)
def test_a_watch_is_pure(stop: Stop, history) -> None:
    before = json.dumps(history)
    assert repr(watched(stop, history)) == repr(watched(stop, history))
    assert json.dumps(history) == before


@given(stops, histories, st.data())
def test_a_run_that_goes_on_watches_as_one_that_never_stopped(stop: Stop, history, data) -> None:
    straight = watched(stop, history)
    at = data.draw(st.integers(1, len(history)))
    saved = json.loads(json.dumps(straight[at - 1].to_json()))
    resumed = Watch(**saved).again(stop, history[at - 1])
    assert repr(resumed) == repr(straight[at - 1])
    assert repr(watched(stop, history[at:], resumed, at + 1)) == repr(straight[at:])


@given(stops, histories)
def test_the_best_round_is_the_first_with_the_best_figure(stop: Stop, history) -> None:
    watch, name = watched(stop, history)[-1], stop.monitor or "loss"
    finite = [(figures[name], round) for round, figures in enumerate(history, 1) if math.isfinite(figures[name])]
    if not finite:
        assert (watch.best, watch.best_round) == (None, 0)
        return
    best = (min if lower_is_better(name) else max)(value for value, _ in finite)
    assert (watch.best, watch.best_round) == (best, next(round for value, round in finite if value == best))


@given(st.integers(1, 4), st.sampled_from([0.0, 0.05]), histories)
def test_patience_ends_after_as_many_rounds_without_an_improvement(patience: int, change: float, history) -> None:
    stop = Stop(patience=patience, minimum_change=change)
    anchor, stale = None, 0
    for watch, figures in zip(watched(stop, history), history, strict=True):
        value = figures["loss"]
        if math.isfinite(value):
            improved = anchor is None or anchor - value > change
            anchor, stale = (value, 0) if improved else (anchor, stale + 1)
        assert (watch.reached is not None) == (stale >= patience)


def test_many_small_improvements_are_an_improvement() -> None:
    """The change is counted from the last figure that counted, so slow progress is not mistaken for none."""
    slow = [{"loss": 1.0 - 0.04 * round} for round in range(20)]
    assert not any(watch.reached for watch in watched(Stop(patience=3, minimum_change=0.1), slow))


@given(stops, histories)
def test_a_target_is_reached_at_or_past_its_figure(stop: Stop, history) -> None:
    if stop.target is None:
        return
    name, goal = stop.target
    for watch, figures in zip(watched(stop, history), history, strict=True):
        there = figures[name] <= goal if lower_is_better(name) else figures[name] >= goal
        assert there == (watch.reached is not None and watch.reached.startswith("target"))
