"""A pass: its queries, and what it sees of other writers between two messages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from disinherit.common.errors import CampaignError
from disinherit.server.campaign import order, outcomes, staging
from disinherit.server.planning.plan import Plan
from disinherit.server.states import TRANSITIONS, CampaignEvent, CampaignState, Task, TaskState
from disinherit.server.store import known_plans
from disinherit.server.store.graph import StoredPart
from disinherit.server.store.history import note_lost
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, NAMES, World, gone, make_request
from tests.support.counting import Counted, counting


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that passes plan, each time they do."""
    made: list[str] = []

    def plan(part: StoredPart, request: pb.UnlearningRequest, tasks: Mapping[str, Task]) -> Plan:
        made.append(request.id)
        return known_plans.plan_again(part, request, tasks)

    for module in (order, staging):
        monkeypatch.setattr(module, "plan_again", plan)
    return made


def test_a_happy_pass_makes_one_transaction_for_each_answer(world: World, plans: list[str]) -> None:
    world.coordinator.submit(make_request())
    with counting() as counted:
        assert world.coordinator.run("q").outcome == "complete"
    # The lease, all that is read, two Fisher answers, what is sent, three that are applied, three
    # that are verified, the end.
    assert len(counted.transactions) == 12
    assert counted.empty == []
    assert counted.selects <= 40
    assert plans == ["q"]


def test_answers_that_are_there_together_are_one_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.coordinator.submit(make_request())
    inner = world.transport.ask

    def ask(asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        answers = list(inner(asks, timeout))
        for answer in answers:
            yield replace(answer, more=answer is not answers[-1])

    monkeypatch.setattr(world.transport, "ask", ask)
    with counting() as counted:
        assert world.coordinator.run("q").outcome == "complete"
    # One for all that are applied, and one for all that are verified, of three owners each.
    assert len(counted.transactions) == 8
    assert set(world.states("q").values()) == {TaskState.VERIFIED}


def test_an_answer_that_cannot_be_handled_stops_none_that_came_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.coordinator.submit(make_request())
    inner = world.transport.ask

    def ask(asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        for answer in inner(asks, timeout):
            yield replace(answer, more=True)

    def outcome_of(task: Task, *rest: Any, **named: Any) -> Any:
        if task.owner == "ben":
            raise ZeroDivisionError
        return outcomes.outcome_of(task, *rest, **named)

    monkeypatch.setattr(world.transport, "ask", ask)
    monkeypatch.setattr("disinherit.server.campaign.apply.outcome_of", outcome_of)
    world.coordinator.run("q")
    owners = {task.owner: task.state for task in world.store.tasks("q").values()}
    assert owners == {
        "anna": TaskState.VERIFIED,
        "ben": TaskState.FAILED,
        "cleo": TaskState.VERIFIED,
    }


def test_a_pass_reads_its_tasks_once_unless_somebody_else_changes_one(world: World) -> None:
    world.coordinator.submit(make_request())
    with counting() as counted:
        world.coordinator.run("q")
    assert _reads_of_tasks(counted) == 1

    def resend(_: Ask, honest: Callable[[], Answer]) -> Answer:
        world.store.resend("q")
        return honest()

    world.store.resend("q")
    world.transport.twists["cleo", "evaluate.panel"] = resend
    with counting() as counted:
        world.coordinator.run("q")
    assert _reads_of_tasks(counted) > 2


def _reads_of_tasks(counted: Counted) -> int:
    statements = [s for transaction in counted.transactions for s in transaction]
    return sum("task.result" in s for s in statements if s.startswith("SELECT"))


def test_every_transaction_that_changes_a_task_counts_it(world: World) -> None:
    request = make_request()
    request.retention_seconds = 1000
    with counting() as counted:
        world.coordinator.submit(request)
        world.store.transition("q", CampaignEvent.PAUSE)
        world.store.transition("q", CampaignEvent.RESUME)
        world.coordinator.run("q")
        world.store.resend("q")
        world.coordinator.run("q")
        world.store.roll_back("q")
        world.coordinator.run("q")
    writes = ("INSERT INTO task ", "UPDATE task ", "DELETE FROM task ")
    changed = [
        statements
        for statements in counted.transactions
        if any(s.startswith(writes) for s in statements)
    ]
    assert len(changed) > 10
    for statements in changed:
        assert any(s.startswith("UPDATE campaign SET task_changes=") for s in statements)


def test_models_that_change_alike_change_by_one_statement(world: World) -> None:
    world.coordinator.submit(make_request())
    with counting() as counted:
        world.coordinator.run("q")
    changes = [
        [s for s in statements if s.startswith("UPDATE task")]
        for statements in counted.transactions
    ]
    # What is sent, three that are applied, three that are verified.
    assert [len(found) for found in changes if found] == [1] * 7


def test_a_pass_with_nothing_to_do_makes_three_transactions(world: World, plans: list[str]) -> None:
    world.coordinator.submit(make_request())
    world.coordinator.run("q")
    with counting() as counted:
        assert world.coordinator.run("q").outcome == "unchanged"
    assert len(counted.transactions) == 3
    assert counted.empty == []
    assert plans == ["q", "q"]


def test_waves_are_planned_once(world: World, plans: list[str]) -> None:
    request = make_request()
    request.roll_out.canaries.append("cleo")
    request.roll_out.waves.add(count=1)
    world.coordinator.submit(request)
    with counting() as counted:
        assert world.coordinator.run("q").outcome == "complete"
    assert counted.empty == []
    assert plans == ["q"]


def test_a_later_wave_does_not_ask_the_roots_again(world: World) -> None:
    request = make_request()
    request.roll_out.canaries.append("cleo")
    world.coordinator.submit(request)
    world.coordinator.run("q")
    asked = [action for _, action in world.transport.actions()]
    assert asked.count("query.fisher") == 2


def test_submitting_a_request_makes_two_transactions_and_the_same_again_one(world: World) -> None:
    with counting() as counted:
        world.coordinator.submit(make_request(), notes=False)
    assert len(counted.transactions) == 2
    with counting() as counted:
        world.coordinator.submit(make_request(), notes=False)
    assert len(counted.transactions) == 1
    assert counted.empty == []


@pytest.mark.parametrize("event", [CampaignEvent.PAUSE, CampaignEvent.ABORT])
@pytest.mark.parametrize("action", ["query.fisher", "train.unlearn"])
@pytest.mark.parametrize("answers", [True, False])
def test_what_a_person_stops_during_an_answer_is_stopped_before_the_next_kind_of_message(
    world: World, event: CampaignEvent, action: str, answers: bool
) -> None:
    world.coordinator.submit(make_request())

    def stop(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        world.store.transition("q", event)
        return honest() if answers else gone(ask, honest)

    world.transport.twists["ben", action] = stop
    world.coordinator.run("q")
    following = {"query.fisher": "train.unlearn", "train.unlearn": "evaluate.panel"}[action]
    assert following not in {asked for _, asked in world.transport.actions()}
    assert world.store.campaign("q").state is TRANSITIONS[event][1]


def test_what_was_opened_again_while_it_was_verified_stays_open(world: World) -> None:
    world.coordinator.submit(make_request())

    def resend(_: Ask, honest: Callable[[], Answer]) -> Answer:
        world.store.resend("q")
        return honest()

    world.transport.twists["cleo", "evaluate.panel"] = resend
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.PENDING
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "unchanged"
    assert world.states() == dict.fromkeys(AFFECTED, TaskState.VERIFIED)


def test_nobody_is_asked_for_anything_once_history_is_known_to_be_lost(world: World) -> None:
    planned = world.coordinator.submit(make_request())

    def lose(_: Ask, honest: Callable[[], Answer]) -> Answer:
        with world.store.writing() as db:
            note_lost(db, "an entry is missing")
        return honest()

    world.transport.twists["ben", "query.fisher"] = lose
    world.coordinator.run("q")
    assert {action for _, action in world.transport.actions()} == {"query.fisher"}
    with pytest.raises(CampaignError, match="an entry is missing"):
        world.coordinator.run("q")
    with pytest.raises(CampaignError, match="an entry is missing"):
        world.coordinator.prepare(make_request(), planned.groups)
    assert world.transport.actions() == []
    assert set(world.states().values()) == {TaskState.PENDING}


def test_who_is_away_costs_no_transaction_that_changes_nothing(world: World) -> None:
    world.coordinator.submit(make_request())
    for name in NAMES:
        world.transport.twists[name, "query.fisher"] = gone
    world.coordinator.run("q")
    with counting() as counted:
        world.coordinator.run("q")
    assert counted.empty == []
    assert world.store.campaign("q").state is CampaignState.RUNNING
