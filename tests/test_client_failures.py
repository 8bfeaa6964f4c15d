"""Reasons of failures: one line of ours, and what other code said in the owner's log only."""

import logging
import re

import pytest

from disinherit.client.failures import explain
from disinherit.common.errors import FisherError


def test_foreseen_errors_are_their_own_reason(caplog: pytest.LogCaptureFixture) -> None:
    assert explain(FisherError("Expected a,\n  but got b."), "x") == "Expected a, but got b."
    assert not caplog.records


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size\n\tmismatch"),
        KeyError("cat"),
        OSError(2, "No such file", "/data/patients/cat-5-jane-doe-1971.png"),
        MemoryError(),
    ],
)
def test_what_other_code_said_stays_in_the_owners_log_under_a_reference(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise error
    except Exception as caught:
        with caplog.at_level(logging.ERROR):
            said = explain(caught, "unlearn in model 'm'")
    found = re.fullmatch(
        rf"Expected to unlearn in model 'm', but got {type(error).__name__}\. The owner's log "
        r"has the reason under reference ([0-9a-f]{8})\.",
        said,
    )
    assert found
    (record,) = caplog.records
    assert record.getMessage() == f"Failed to unlearn in model 'm' (reference {found[1]})"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
