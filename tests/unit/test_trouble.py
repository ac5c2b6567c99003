"""What went wrong with a run's store: shown for a while, and only what stops the run stops it."""

from koinon.fleet.coordinator.trouble import Trouble


def test_what_stops_a_run_is_over_when_it_goes_on_and_a_copy_that_failed_is_not() -> None:
    now = [0.0]
    trouble = Trouble("r-1", lambda: now[0])
    trouble.note("a model cannot be copied", stops=False)
    assert (trouble.text, trouble.stops) == ("a model cannot be copied", False)
    trouble.over()
    assert trouble.text == "a model cannot be copied", "a round that was committed copies nothing"
    trouble.note("the disk is full")
    trouble.note("a model cannot be copied", stops=False)
    assert (trouble.text, trouble.stops) == ("the disk is full", True)
    trouble.over()
    assert (trouble.text, trouble.stops) == (None, False)
    trouble.note("the disk is full")
    now[0] = 60.0
    assert (trouble.text, trouble.stops) == (None, False)
