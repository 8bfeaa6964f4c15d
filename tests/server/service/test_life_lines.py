"""What the log of a service says of campaigns, and what a service says when it starts."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from disinherit.server.service import life_lines
from disinherit.server.service.life_lines import JsonLines
from disinherit.v1 import coordinator_pb2 as pb
from tests.server.service.test_calls import approve, await_end, submit
from tests.support.agent import wait_for
from tests.support.campaign import gone
from tests.support.service import Running, write_tokens


@pytest.fixture
def database() -> None:
    """SQLite alone: the lines are the same for every database."""


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == life_lines.__name__]


def test_the_life_of_a_campaign_is_logged(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running.world.transport.twists["cleo", "train.unlearn"] = gone
    running.service._feed._seconds = 0.05
    submit(running)
    approve(running)
    operator = running.client("operator")
    wait_for(lambda: operator.GetRequest(pb.GetRequestRequest(id="q")).tasks["verified"] == 4)
    operator.PauseRequest(pb.ControlRequest(id="q"))
    running.service._driver.poke()
    del running.world.transport.twists["cleo", "train.unlearn"]
    operator.ResumeRequest(pb.ResumeRequestRequest(id="q"))
    await_end(running)
    expected = [
        "request q: the request was submitted, by operator:operator",
        "request q: the request was approved, by approver:approver",
        "request q: the campaign was paused, by operator:operator",
        "request q: the campaign was resumed, by operator:operator",
        "request q: the campaign is complete",
    ]
    wait_for(lambda: len(lines(caplog)) == len(expected))
    assert lines(caplog) == expected
    assert "to be running" not in caplog.text
    completed = caplog.records[-1]
    for record in caplog.records:
        if getattr(record, "event", "") == "completed":
            completed = record
    found = json.loads(JsonLines().format(completed))
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "INFO",
        "logger": life_lines.__name__,
        "message": "request q: the campaign is complete",
        "event": "completed",
        "request": "q",
        "state": "complete",
        "actor": "coordinator",
        "sequence": found["sequence"],
    }


def test_a_pass_over_a_campaign_that_is_stopped_is_no_warning(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """As when somebody pauses it between a look at the campaigns and the pass."""
    submit(running)
    with caplog.at_level(logging.DEBUG):
        assert running.service._driver._pass("q") is False
    assert "Expected" not in caplog.text


def test_lines_of_json_hold_errors_on_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "it %s", ("failed",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["level"], found["message"]) == ("ERROR", "it failed")
    assert "ValueError: two\nlines" in found["error"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_service_says_how_it_is_set_up(form: str, tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens.toml")
    options = ["--database", "a.db", "--tokens", "tokens.toml", "--listen", "127.0.0.1:0"]
    program = str(Path(sys.executable).with_name("disinherit"))
    command = [program, "serve", "--plaintext", *options]
    with subprocess.Popen(
        [*command, "--log-format", form], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        read = []
        for line in process.stderr:
            read.append(line)
            if "signing" in line:  # the last part
                break
        process.terminate()
        rest = process.stderr.read()
    assert process.returncode == 0, (read, rest)
    if form == "json":
        (line,) = read
        found = json.loads(line)
        assert found["event"] == "started"
        parts = found["settings"]
        assert all(json.loads(line)["level"] for line in rest.splitlines())
    else:
        assert read[0].startswith("serving on port ")
        parts = dict(line.strip().split(None, 1) for line in read[1:])
    port = read[0].partition("serving on port ")[2].partition('"')[0].strip()
    assert parts["operators"] == f"127.0.0.1:{port}, plaintext, on this machine only"
    assert parts["version"].startswith("disinherit ")
    assert parts["tokens"] == "tokens.toml (1 approver, 1 operator, 2 owner, 1 viewer)"
    assert parts["approval"] == "campaigns wait for an approver"
    assert parts["agents"] == "not served"
    assert parts["store"].startswith("a.db (revision 00")
    assert parts["signing"].startswith("key ")
