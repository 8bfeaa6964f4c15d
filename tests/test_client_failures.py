"""Reasons of failures: one line, and a traceback in the log only where nobody foresaw it."""

import logging

import pytest

from disinherit.client.failures import explain
from disinherit.common.errors import FisherError


def test_foreseen_errors_are_their_own_reason(caplog: pytest.LogCaptureFixture) -> None:
    assert explain(FisherError("Expected a,\n  but got b."), "x") == "Expected a, but got b."
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("size\n\tmismatch"), "RuntimeError: size mismatch"),
        (KeyError("cat"), "KeyError: 'cat'"),
        (MemoryError(), "MemoryError: no reason"),
    ],
)
def test_unforeseen_errors_are_named_and_logged(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise error
    except Exception as caught:
        with caplog.at_level(logging.ERROR):
            said = explain(caught, "unlearn in model 'm'")
    assert said == (
        f"Expected to unlearn in model 'm', but got {reason}. The owner's log has the traceback."
    )
    (record,) = caplog.records
    assert record.getMessage() == "Failed to unlearn in model 'm'"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
