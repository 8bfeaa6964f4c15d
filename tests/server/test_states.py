"""States of a campaign: the table, the stored state, and the coordinator."""

from collections.abc import Callable
from itertools import product

import pytest

from disinherit.common.errors import CampaignError, RequestError
from disinherit.common.graph.records import Inheritance, InheritanceKind
from disinherit.server.now import now_us
from disinherit.server.states import (
    TRANSITIONS,
    CampaignEvent,
    CampaignState,
    TaskState,
    next_state,
    state_after_pass,
)
from disinherit.server.transport.base import Answer, Ask
from tests.support.campaign import AFFECTED, World, broken, gone, make_request
from tests.support.changes import kept_packets
from tests.support.owner import LABELS, PointsOwner

HOUR_US = 3_600_000_000
E, S = CampaignEvent, CampaignState
ALLOWED = {
    (S.AWAITING_APPROVAL, E.APPROVE): S.RUNNING,
    (S.AWAITING_APPROVAL, E.ABORT): S.ABORTED,
    (S.RUNNING, E.PAUSE): S.PAUSED,
    (S.RUNNING, E.ABORT): S.ABORTED,
    (S.RUNNING, E.HALT): S.HALTED,
    (S.COMPLETE, E.HALT): S.HALTED,
    (S.PARTIAL, E.HALT): S.HALTED,
    (S.HALTED, E.RESUME): S.RUNNING,
    (S.HALTED, E.ABORT): S.ABORTED,
    (S.HALTED, E.ROLL_BACK): S.ROLLING_BACK,
    (S.PAUSED, E.RESUME): S.RUNNING,
    (S.PAUSED, E.ABORT): S.ABORTED,
    (S.COMPLETE, E.REOPEN): S.RUNNING,
    (S.PARTIAL, E.REOPEN): S.RUNNING,
    (S.PARTIAL, E.RESUME): S.RUNNING,
    (S.PARTIAL, E.ABORT): S.ABORTED,
    (S.PAUSED, E.ROLL_BACK): S.ROLLING_BACK,
    (S.COMPLETE, E.ROLL_BACK): S.ROLLING_BACK,
    (S.PARTIAL, E.ROLL_BACK): S.ROLLING_BACK,
    (S.ABORTED, E.ROLL_BACK): S.ROLLING_BACK,
    (S.ROLLED_BACK, E.ROLL_BACK): S.ROLLING_BACK,
}


def state(world: World) -> CampaignState:
    return world.store.campaign("q").state


# --- the table


@pytest.mark.parametrize(("before", "event"), list(product(S, E)))
def test_every_event_in_every_state_follows_the_table_or_is_refused(
    before: CampaignState, event: CampaignEvent
) -> None:
    if (before, event) in ALLOWED:
        assert next_state(before, event) is ALLOWED[before, event]
    elif before is TRANSITIONS[event][1]:
        assert next_state(before, event) is before
    else:
        with pytest.raises(RequestError, match=f"to {event}, but it is {before}"):
            next_state(before, event)


@pytest.mark.parametrize(
    ("tasks", "deadline", "expected"),
    [
        ([], 0, S.COMPLETE),
        ([TaskState.VERIFIED, TaskState.EXEMPT], 5, S.COMPLETE),
        ([TaskState.VERIFIED, TaskState.APPLIED], 0, S.RUNNING),
        ([TaskState.FAILED], 11, S.RUNNING),
        ([TaskState.FAILED], 10, S.PARTIAL),
        ([TaskState.VERIFIED, TaskState.PENDING], 9, S.PARTIAL),
    ],
)
def test_the_state_after_a_pass_follows_from_tasks_and_deadline(
    tasks: list[TaskState], deadline: int, expected: CampaignState
) -> None:
    assert state_after_pass(tasks, deadline, now_us=10) is expected


# --- the store


def test_a_campaign_comes_back_after_reopening(world: World) -> None:
    before = now_us()
    world.coordinator.submit(make_request(), approval=True, deadline_us=7)
    with world.again() as again:
        campaign = again.store.campaign("q")
        assert again.store.campaigns() == [campaign]
    assert campaign.state is S.AWAITING_APPROVAL
    assert campaign.deadline_us == 7
    assert before <= campaign.created_us <= campaign.updated_us <= now_us()


def test_submitting_again_does_not_change_the_campaign(world: World) -> None:
    world.coordinator.submit(make_request(), approval=True, deadline_us=7)
    world.store.transition("q", E.APPROVE)
    before = world.store.campaign("q")
    world.coordinator.submit(make_request(), approval=True, deadline_us=8)
    assert world.store.campaign("q") == before


def test_a_refused_or_repeated_transition_changes_nothing(world: World) -> None:
    world.coordinator.submit(make_request())
    before = world.store.campaign("q")
    world.store.transition("q", E.RESUME)
    world.store.transition("q", E.APPROVE)
    assert world.store.campaign("q") == before
    world.store.transition("q", E.PAUSE)
    before = world.store.campaign("q")
    with pytest.raises(RequestError, match="to approve, but it is paused"):
        world.store.transition("q", E.APPROVE)
    with pytest.raises(RequestError, match="'nothing'"):
        world.store.transition("nothing", E.PAUSE)
    assert world.store.campaign("q") == before


# --- a coordinator


@pytest.mark.parametrize("events", [(), (E.APPROVE, E.PAUSE), (E.ABORT,)])
def test_a_stopped_campaign_is_not_run(world: World, events: tuple[CampaignEvent, ...]) -> None:
    world.coordinator.submit(make_request(), approval=True)
    for event in events:
        world.store.transition("q", event)
    knowledge = world.knowledge()
    with pytest.raises(CampaignError, match=f"'q' to be running, but it is {state(world)}"):
        world.coordinator.run("q")
    assert world.transport.actions() == []
    assert world.knowledge() == knowledge


def test_an_approved_campaign_runs_until_it_is_complete(world: World) -> None:
    world.coordinator.submit(make_request(), approval=True)
    world.store.transition("q", E.APPROVE)
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.coordinator.run("q")
    assert state(world) is S.RUNNING
    world.transport.twists.clear()
    world.coordinator.run("q")
    assert state(world) is S.COMPLETE


def test_after_its_deadline_a_campaign_is_partial_and_can_still_be_completed(world: World) -> None:
    world.coordinator.submit(make_request(), deadline_us=now_us() - 1)
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.coordinator.run("q")
    assert state(world) is S.PARTIAL
    world.transport.twists.clear()
    assert world.store.transition("q", E.RESUME, now_us() + HOUR_US).state is S.RUNNING
    world.coordinator.run("q")
    assert state(world) is S.COMPLETE


def test_a_pause_keeps_the_roots_answers_and_sends_nothing_more(
    world: World,
) -> None:
    def paused(_: Ask, honest: Callable[[], Answer]) -> Answer:
        world.store.transition("q", E.PAUSE)
        return honest()

    world.coordinator.submit(make_request())
    world.transport.twists["ben", "query.fisher"] = paused
    files = world.files()
    world.coordinator.run("q")
    assert world.files() == files
    assert state(world) is S.PAUSED
    assert sorted(kept_packets(world.store, "q")) == ["r1", "r2"]
    world.transport.actions()

    world.store.transition("q", E.RESUME)
    assert world.coordinator.run("q").outcome == "complete"
    assert "query.fisher" not in {action for _, action in world.transport.actions()}


def test_a_late_application_after_an_abort_is_recorded(world: World) -> None:
    def aborted(_: Ask, honest: Callable[[], Answer]) -> Answer:
        world.store.transition("q", E.ABORT)
        return honest()

    world.coordinator.submit(make_request())
    world.transport.twists["anna", "train.unlearn"] = aborted
    world.coordinator.run("q")
    assert state(world) is S.ABORTED
    assert world.states()["r1"] is TaskState.APPLIED
    assert "r1~q" in world.store.graph()
    assert "evaluate.panel" not in {action for _, action in world.transport.actions()}


def test_a_late_descendant_opens_a_completed_campaign_again(world: World) -> None:
    world.coordinator.submit(make_request(), deadline_us=now_us() + HOUR_US)
    world.coordinator.run("q")
    finished = world.store.campaign("q")
    world.coordinator.submit(make_request())
    assert world.store.campaign("q") == finished
    with PointsOwner(world.root / "cleo", "cleo") as cleo:
        record = cleo.train("late", LABELS, now_us(), start=[world.weights("r4")])
        edge = Inheritance("r4", "late", InheritanceKind.TRANSFER)
        world.store.add_model(record, [edge])

    world.coordinator.submit(make_request())

    reopened = world.store.campaign("q")
    assert finished.state is S.COMPLETE
    assert reopened.state is S.RUNNING
    assert reopened.deadline_us > finished.deadline_us
    assert world.states()["late"] is TaskState.PENDING


def test_a_model_that_fails_keeps_a_campaign_without_deadline_open(world: World) -> None:
    world.coordinator.submit(make_request())
    world.transport.twists["ben", "train.unlearn"] = broken
    world.coordinator.run("q")
    assert state(world) is S.RUNNING
    assert world.states() == {
        model: TaskState.FAILED if model in ("r2", "r6") else TaskState.VERIFIED
        for model in AFFECTED
    }
