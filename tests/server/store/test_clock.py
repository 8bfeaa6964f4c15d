"""A coordinator with a wrong clock: no loss, no endless wait, no changed order."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.common.errors import RequestError
from disinherit.server.now import now_us
from disinherit.server.states import CampaignState, Task, TaskState
from disinherit.server.store import leases, store
from disinherit.server.store.clock import Clock, confirm_clock
from disinherit.server.store.database import Database
from disinherit.server.store.retention import check_kept
from disinherit.server.store.schema import prepare
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.server.store.test_audit import exported
from tests.support.campaign import World, broken, make_request

HOUR = 3600 * 1_000_000
DAY = 24 * HOUR
YEAR = 365 * DAY


@dataclass
class Times:
    """A clock that may be set, and the time that passes all the same."""

    clock: int = 50 * YEAR
    passed: int = 5

    def go_on(self, us: int) -> None:
        self.clock += us
        self.passed += us


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "coordinator.db")
    prepare(opened)
    yield opened
    opened.close()


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def clock(opened: Database, times: Times) -> Clock:
    return Clock(opened, lambda: times.clock, lambda: times.passed)


def restarted(opened: Database, times: Times) -> Clock:
    times.passed = 1
    return Clock(opened, lambda: times.clock, lambda: times.passed)


def test_running_clock_is_accepted_after_any_time(clock: Clock, times: Times) -> None:
    for _ in range(20):
        assert clock.believed()
        times.go_on(40 * DAY)  # also while the machine sleeps
        times.clock += HOUR // 2  # and drifts


@pytest.mark.parametrize("jump", [2 * HOUR, 40 * DAY, -2 * HOUR, -YEAR])
def test_jump_of_the_clock_is_detected_until_it_is_right_again(
    clock: Clock, times: Times, jump: int
) -> None:
    assert clock.believed()
    times.clock += jump
    for _ in range(3):
        times.go_on(HOUR)
        assert not clock.believed()
    times.clock -= jump
    assert clock.believed()


@pytest.mark.parametrize("jump", [40 * DAY, -40 * DAY])
def test_a_clock_that_was_set_while_the_coordinator_was_stopped_is_noticed(
    opened: Database, clock: Clock, times: Times, jump: int
) -> None:
    assert clock.believed()
    times.go_on(HOUR // 2)
    assert restarted(opened, times).believed()
    times.clock += jump
    assert not restarted(opened, times).believed()


def test_person_confirms_the_clock(
    opened: Database, clock: Clock, times: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock.believed()
    times.clock += 40 * DAY
    assert not clock.believed()
    monkeypatch.setattr("disinherit.server.store.clock.now_us", lambda: times.clock)
    with opened.writing() as db:
        confirm_clock(db, "administrator")
    assert clock.believed()
    times.go_on(DAY)
    assert clock.believed()
    assert restarted(opened, times).believed()


def ended(world: World) -> None:
    """A campaign that is complete, with a window of thirty days."""
    request = make_request()
    request.retention_seconds = 30 * 24 * 3600
    world.coordinator.submit(request)
    assert world.coordinator.run("q").outcome == "complete"


def test_nothing_is_destroyed_while_the_clock_is_ahead(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended(world)
    ahead = lambda: now_us() + 40 * DAY  # noqa: E731
    for module in ("store.clock", "store.retention"):
        monkeypatch.setattr(f"disinherit.server.{module}.now_us", ahead)
    world.store._clock = Clock(world.store._database, ahead)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert world.store.due_destructions() == {}
            world.coordinator.drive("q")
    assert caplog.text.count("disinherit confirm clock") == 1
    assert not any(task.destroyed_us for task in world.store.tasks("q").values())
    with world.store._database.writing() as db:
        confirm_clock(db, "administrator")
    world.coordinator.drive("q")
    assert all(task.destroyed_us for task in world.store.tasks("q").values())


def test_destroyed_version_is_not_put_back_whatever_the_clock_shows() -> None:
    kept = Task("r", "anna", TaskState.VERIFIED, destroy_us=1)
    check_kept(kept)  # the window has passed, but its owner has it
    for when in (1, now_us() + YEAR):
        with pytest.raises(RequestError, match="'r' cannot be put back: its old weights were"):
            check_kept(Task("r", "anna", TaskState.VERIFIED, destroyed_us=when))


def test_campaign_without_restored_model_is_not_rolled_back(world: World) -> None:
    ended(world)
    world.store.roll_back("q")
    for owner in ("anna", "ben", "cleo"):
        world.transport.twists[owner, "train.rollback"] = broken
    world.coordinator.run("q")
    assert world.store.campaign("q").state is CampaignState.PARTIAL
    assert {task.state for task in world.store.tasks("q").values()} == {TaskState.APPLIED}


def test_a_lease_of_a_clock_that_was_a_year_ahead_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.coordinator.submit(make_request())
    with monkeypatch.context() as patch:
        patch.setattr(leases, "now_us", lambda: now_us() + YEAR)
        dead = world.store.acquire_lease("q", "dead", 30.0)
    assert world.coordinator.run("q").outcome == "complete"
    with pytest.raises(Exception, match="given up with token"):
        world.store.renew_lease(dead, 30.0)


def test_successor_dated_by_a_fast_clock_is_accepted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their owners made them at the time that they were given, and the clock is right by now."""
    world.coordinator.submit(make_request())
    for owner in ("anna", "ben", "cleo"):
        world.transport.twists[owner, "train.unlearn"] = gone_after
    ahead = lambda: now_us() + YEAR  # noqa: E731
    with monkeypatch.context() as patch:
        for module in ("campaign.merge", "store.tasks"):
            patch.setattr(f"disinherit.server.{module}.now_us", ahead)
        world.coordinator.run("q")
    assert not any(state.complete for state in world.states().values())
    world.transport.twists.clear()
    world.coordinator.run("q")
    assert set(world.states().values()) == {TaskState.VERIFIED}


def gone_after(ask: Ask, deliver: Callable[[], Answer]) -> Answer:
    """The owner does it, but its answer does not arrive."""
    deliver()
    return Answer(ask, error="no answer", unreachable=True)


def test_requests_are_carried_out_in_the_order_they_came_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = CoordinatorStore(tmp_path / "coordinator.db")
    for number, ahead in enumerate((0, YEAR, -HOUR, HOUR, -YEAR)):
        with monkeypatch.context() as patch:
            patch.setattr(store, "now_us", lambda ahead=ahead: now_us() + ahead)
            kept.submit(pb.UnlearningRequest(id=f"{9 - number}"), [])
    assert kept.requests() == ["9", "8", "7", "6", "5"]
    assert [one.request_id for one in kept.campaigns()] == kept.requests()
    kept.close()


def test_the_command_line_says_what_is_destroyed_then_and_asks(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended(world)
    config = tmp_path / "serve.toml"
    place = json.dumps(str(world.place))
    config.write_text(f'database = {place}\ntokens = "tokens.toml"\n')
    for module in ("store.clock", "store.retention"):
        monkeypatch.setattr(f"disinherit.server.{module}.now_us", lambda: now_us() + 40 * DAY)
    assert run(["confirm", "clock", "--config", str(config), "--yes"]) == 0
    said = capsys.readouterr().out
    assert "q: destroys the old weights of r1, " in said
    assert run(["confirm", "clock", "--config", str(config), "--yes", "-o", "json"]) == 0
    printed = capsys.readouterr()
    assert "q: destroys the old weights of r1, " in printed.err
    shown = json.loads(printed.out)
    assert shown["destroys"].keys() == {"q"}
    assert shown["confirmed"] is True
    assert "clock_confirmed" in [entry.event.kind for entry in exported(world.store)]
