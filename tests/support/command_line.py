"""Calls of the command line in this process, and what it printed."""

import json
from typing import Any

import pytest

from disinherit.cli.main import run

Capture = pytest.CaptureFixture[str]


def as_json(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    """JSON output of a command."""
    assert run([*arguments, "--format", "json"]) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out)


def error_line(capsys: Capture) -> str:
    """The only line on standard error, an error message."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    return printed.err
