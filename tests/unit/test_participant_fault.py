"""What a participant tells of its own app's faults, and what it keeps to itself."""

import logging

import pytest

from koinon.errors import ClientError, ModelError
from koinon.fleet.participant.fault import reason_of


def test_what_the_apps_own_code_raised_is_logged_here_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = ClientError(
        "Client 'lyon' failed while training: the traceback above says where", client="lyon", stage="train"
    )
    error.__cause__ = ZeroDivisionError("an empty shelf")
    with caplog.at_level(logging.ERROR):
        assert reason_of(error, 7) == "ZeroDivisionError: an empty shelf"
    (line,) = caplog.records
    assert line.getMessage() == "Round 7 cannot be computed here"
    assert line.exc_info is not None and line.exc_info[1] is error.__cause__


def test_what_koinon_refuses_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    assert reason_of(ModelError("train() must return three things"), 7) == "train() must return three things"
    assert reason_of(ValueError("no such column"), 7) == "ValueError: no such column"
    assert len(caplog.records) == 1
