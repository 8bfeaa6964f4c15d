"""`disinherit request watch`: what a terminal shows, and all that happens in the fleet."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import click
import pytest

from disinherit.cli.connection import Connection
from disinherit.cli.main import run
from disinherit.cli.output import print_rich
from disinherit.cli.request.watching import Board
from disinherit.common.errors import UnreachableError
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2
from tests.support.command_line import Capture, as_json, error_line
from tests.support.service import Running, secret, speak_as

NOW_US = int(time.time() * 1e6)


def status(**tasks: int) -> pb.RequestStatus:
    return pb.RequestStatus(
        request=unlearning_pb2.UnlearningRequest(
            id="forget-e471",
            reason="erasure request 118",
            roots=[unlearning_pb2.Root(model_id="r1", classes=["5"])],
        ),
        state=pb.CAMPAIGN_STATE_RUNNING,
        tasks=tasks,
        created_us=NOW_US - 451_000_000,
        deadline_us=NOW_US + 30 * 86_400_000_000,
        waves=3,
        waves_begun=2,
    )


def covered(model: str, owner: str, state: str, reason: str = "") -> pb.ModelCoverage:
    return pb.ModelCoverage(model_id=model, owner=owner, state=state, reason=reason)


OWNERS = {
    "h9": pb.Owner(name="h9", online=True),
    "h19": pb.Owner(name="h19", last_seen_us=NOW_US - 3 * 3_600_000_000, hours="22:00-06:00"),
}


def shown(board: Board, capsys: Capture) -> str:
    print_rich(board.render())
    return capsys.readouterr().out


def test_a_terminal_shows_what_is_missing_and_why(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW_US / 1e6 + 2)
    board = Board()
    assert "asking" in shown(board, capsys)
    board.update(status(verified=0, pending=2), [covered("m3", "h9", "sent")], OWNERS)
    many = [covered(f"n{i}", "h19", "pending") for i in range(14)]
    done = covered("m3", "h9", "verified")
    done.measured.retain_before, done.measured.retain_after = 0.941, 0.939
    failed = covered("m46", "h9", "failed", "withheld: fewer than 20 samples")
    board.update(status(verified=18, pending=3, failed=1), [done, *many, failed], OWNERS)
    lines = [" ".join(line.split()) for line in shown(board, capsys).splitlines()]
    assert lines[0] == (
        "forget-e471 forget 5 at r1 · erasure request 118 … running · wave 2/3 · deadline in 29 d"
    )
    assert re.fullmatch("█{19}░{5} 18/22 done 1 failed 3 pending 0:07:33", lines[1])
    assert lines[2] == "✕ failed m46 h9 withheld: fewer than 20 samples"
    assert lines[3] == ("… pending n0 h19 owner offline, last seen 3 h ago, takes part 22:00-06:00")
    assert "and 5 more" in lines
    assert lines[-1].endswith("h9 verified m3, retain 94.1 → 93.9")


def test_a_request_is_followed_on_a_terminal(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    speak_as("operator", running, monkeypatch)
    monkeypatch.setattr("disinherit.cli.request.watching.is_terminal", lambda: True)
    submit = ("request", "submit", "--forget", "cat@r1", "--id", "q", "--alpha", "1")
    as_json(capsys, *submit, "--lambda", "0.5", "--gauge", "3")
    as_json(capsys, "request", "approve", "q", "--token", secret("approver"))
    assert run(["request", "watch", "q"]) == 0
    printed = capsys.readouterr()
    assert "5/5 done" in click.unstyle(printed.out)
    assert "✓ complete" in click.unstyle(printed.out)
    assert "disinherit request report q" in printed.err


EVENTS = [
    pb.FleetEvent(sequence=7, time_us=NOW_US, kind="applied", request_id="q", model_id="r1"),
    pb.FleetEvent(sequence=7, time_us=NOW_US, kind="owner_offline", owner="anna", text="gone"),
]


def test_all_that_happens_is_followed(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked: list[pb.WatchFleetRequest] = []

    def stream(_: Connection, __: object, ask: pb.WatchFleetRequest) -> Iterator[pb.FleetEvent]:
        asked.append(ask)
        yield from EVENTS

    monkeypatch.setattr(Connection, "stream", stream)
    assert run(["request", "watch", "--all"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d applied q r1", first)
    assert second.endswith(" owner offline anna: gone")
    assert not asked[0].HasField("after_sequence")
    assert run(["request", "watch", "--all", "--after", "7", "-o", "json"]) == 0
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["sequence"], one["kind"]) for one in values] == [
        (7, "applied"),
        (7, "owner_offline"),
    ]
    assert asked[1].after_sequence == 7


AWAY = UnreachableError("Expected a coordinator at here, but the connection was lost. Start one.")


def test_a_fleet_is_followed_on_where_it_was_after_the_coordinator_was_away(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    asked: list[int | None] = []
    parts: list[list[Any]] = [[EVENTS[0], AWAY], [AWAY], [AWAY], [pb.FleetEvent(sequence=9)]]

    def stream(_: Connection, __: object, ask: pb.WatchFleetRequest) -> Iterator[pb.FleetEvent]:
        asked.append(ask.after_sequence if ask.HasField("after_sequence") else None)
        for one in parts.pop(0):
            if one is AWAY:
                raise one
            yield one

    monkeypatch.setattr(Connection, "stream", stream)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert run(["request", "watch", "--all", "-o", "json"]) == 0
    assert asked == [None, 7, 7, 7]
    printed = capsys.readouterr()
    assert [json.loads(line)["sequence"] for line in printed.out.splitlines()] == [7, 9]
    away, back = printed.err.splitlines()
    assert away.endswith(
        "at here, but the connection was lost. Waiting for it, until Ctrl-C; nothing is left out."
    )
    assert back.endswith("The coordinator is back.")
    parts[:] = [[AWAY]]
    assert run(["request", "watch", "--all"]) == 3  # never reached


def test_a_request_is_followed_on_without_a_line_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    first, last = status(pending=2), status(verified=2)
    last.state = pb.CAMPAIGN_STATE_COMPLETE
    parts: list[list[Any]] = [[first, AWAY], [first, last]]

    def stream(*_: object) -> Iterator[pb.RequestStatus]:
        for one in parts.pop(0):
            if one is AWAY:
                raise one
            yield one

    monkeypatch.setattr(Connection, "stream", stream)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert run(["request", "watch", "forget-e471"]) == 0
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["running: 2 pending", "complete: 2 verified"]


@pytest.mark.parametrize(
    ("words", "said"),
    [("", "neither"), ("q --all", "both"), ("q --after 3", "--all only")],
)
def test_what_cannot_be_followed_is_one_line(words: str, said: str, capsys: Capture) -> None:
    assert run(["request", "watch", *words.split()]) == 2
    assert said in error_line(capsys)
