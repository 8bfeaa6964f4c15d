"""The agent's connection on real loopback TLS: lost, reconnected, and closed cleanly."""

import datetime
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest

from disinherit.client.agent import link
from disinherit.client.agent.agent import Agent
from disinherit.client.agent.hours import Hours
from disinherit.common.limits import ANSWER
from disinherit.server.transport.base import Answer, Ask, too_large
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.agent import AgentsSide, wait_for
from tests.support.agent_owner import open_points
from tests.support.owner import LABELS, PointsOwner


@pytest.fixture
def side(tmp_path: Path) -> Iterator[AgentsSide]:
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
    with AgentsSide(tmp_path) as side:
        yield side


def ask(side: AgentsSide, timeout: float = 30.0) -> Answer:
    task = pb.EvaluateTask(model_ids=["m"])
    (answer,) = side.transport.ask([Ask("anna", "evaluate.panel", task)], timeout)
    return answer


def test_an_agent_reconnects_to_a_restarted_coordinator(
    side: AgentsSide, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log says what happened in words, not in those of gRPC."""
    caplog.set_level("INFO", "disinherit.client.agent.link")
    with side.agent("anna"):
        first = ask(side).reply
        assert isinstance(first, pb.EvaluateReply)
        side.server.stop()
        wait_for(lambda: side.connected() == [])
        with AgentsSide(side.root, side.server.port) as again:
            wait_for(lambda: again.connected() == ["anna"])
            assert ask(again).reply == first
            records = [*caplog.records]  # before this coordinator ends as well
    said = [one.getMessage() for one in records if one.name.endswith("agent.link")]
    assert said[0] == f"Connected to 127.0.0.1:{side.server.port}"
    assert re.search(r"again, after \d+ s$", said[-1])
    assert all(re.match(r"No connection to \S+ since [-\d]+ [:\d]+: \w", one) for one in said[1:-1])
    codes = "|".join(code.name for code in grpc.StatusCode)
    assert not re.search(rf"{codes}|ipv4|last error", " ".join(said))


def test_an_outage_is_one_line_until_its_reason_changes_or_an_hour_has_passed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "disinherit.client.agent.link")
    begun = 1_790_000_000.0
    outage = link.Outage("here:1")
    for after, why in ((0, "refused"), (60, "refused"), (90, "unknown"), (120, "unknown")):
        monkeypatch.setattr(time, "time", lambda after=after: begun + after)
        outage.note(why)
    monkeypatch.setattr(time, "time", lambda: begun + 3700)
    outage.note("unknown")
    outage.end()
    outage.end()
    said = [one.getMessage() for one in caplog.records]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun))
    assert [line.partition(". ")[0] for line in said] == [
        f"No connection to here:1 since {since}: refused",
        f"No connection to here:1 since {since}: unknown",
        f"No connection to here:1 since {since}: unknown",
        "Connected to here:1 again, after 3700 s",
        "Connected to here:1",
    ]
    assert "tries again by itself" in said[0]


def test_an_answer_travels_in_pieces(side: AgentsSide, monkeypatch: pytest.MonkeyPatch) -> None:
    with side.agent("anna"):
        whole = ask(side).reply
        monkeypatch.setattr(link, "_PART_BYTES", 7)
        assert ask(side).reply == whole
    assert isinstance(whole, pb.EvaluateReply)
    assert len(whole.SerializeToString()) > 70


def test_an_answer_that_is_too_large_is_an_error(side: AgentsSide) -> None:
    task = pb.EvaluateTask(model_ids=["m"])
    with side.agent("anna"):
        (answer,) = side.transport.ask([Ask("anna", "evaluate.panel", task, most_bytes=70)], 30.0)
    assert answer.reply is None
    assert answer.error == (
        "owner anna: Expected an answer of at most 70 bytes, the limit for the registered models, "
        "but it has more: register its models anew if they have changed"
    )
    assert too_large(ANSWER.most) == (
        "its answer is larger than 1,073,741,824 bytes: submit the request with a narrower scope "
        "or with --encoding log8"
    )


def test_stopping_waits_for_the_current_task_and_sends_its_answer(side: AgentsSide) -> None:
    begun, held = threading.Event(), threading.Event()

    def slowly() -> PointsOwner:
        begun.set()
        held.wait(30.0)
        return PointsOwner(side.root / "anna", "anna")

    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(ask(side)))
    with side.agent("anna", slowly) as agent:
        asking.start()
        assert begun.wait(30.0)
        stopping = threading.Thread(target=agent.stop)
        stopping.start()
        held.set()
        stopping.join(30.0)
        assert not stopping.is_alive()
        asking.join(30.0)
        assert answers[0].reply is not None
        wait_for(lambda: side.connected() == [])


def test_outside_its_hours_an_agent_does_not_connect(side: AgentsSide) -> None:
    now = datetime.datetime.now()
    second = now.hour * 3600.0 + now.minute * 60.0
    later = Hours((second + 7200.0) % 86400.0, (second + 10800.0) % 86400.0)
    config = replace(side.config("anna"), hours=later)
    with Agent(config, side.enrolled("anna"), partial(open_points, config)):
        wait_for(lambda: side.arrivals == ["anna"])
        wait_for(lambda: side.connected() == [])
        assert ask(side).unreachable


def test_an_agent_disconnects_when_its_hours_end(side: AgentsSide) -> None:
    identity = side.enrolled("anna")
    now = datetime.datetime.now()
    second = now.hour * 3600.0 + now.minute * 60.0 + now.second
    ending = Hours((second - 3600.0) % 86400.0, (second + 2.0) % 86400.0)
    config = replace(side.config("anna"), hours=ending)
    with Agent(config, identity, partial(open_points, config)):
        wait_for(lambda: side.arrivals == ["anna"])
        wait_for(lambda: side.connected() == [])
    assert side.arrivals == ["anna"]
