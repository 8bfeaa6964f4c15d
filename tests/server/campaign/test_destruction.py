"""Destruction after the retention window, at the owners and in the log."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from disinherit.client.client_app import build_client_app
from disinherit.common.audit.gaps import GapKind
from disinherit.common.errors import RequestError
from disinherit.common.wire.flower import pack, unpack
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.driver import OpenCampaigns
from disinherit.server.now import now_us
from disinherit.server.reports.report import coverage_of, report_of
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.server.store import retention
from disinherit.v1 import unlearning_pb2 as pb
from tests.server.store.test_audit import exported
from tests.support.agent import AgentsSide
from tests.support.campaign import (
    AFFECTED,
    NAMES,
    OWNERS,
    World,
    broken,
    gone,
    lying,
    make_request,
)
from tests.support.flower_messages import RecordDict, call
from tests.support.owner import PointsOwner

HOUR = 3600
E, S = CampaignEvent, CampaignState
Sleep = Callable[[int], None]


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    """Let the coordinator's clock go on by so many seconds, as far as windows are concerned."""

    def forward(seconds: int) -> None:
        later = seconds * 1_000_000
        monkeypatch.setattr(retention, "now_us", lambda: now_us() + later)

    return forward


def finish(world: World, seconds: int = HOUR) -> None:
    """Carry out a request with a window of an hour."""
    for other in world.store.requests():  # which would be carried out first
        world.store.transition(other, E.ABORT)
    request = make_request(request_id="kept")
    request.retention_seconds = seconds
    world.coordinator.submit(request)
    world.coordinator.run("kept")
    world.transport.actions()


def kinds(world: World) -> list[tuple[str, str]]:
    entries = [entry.event for entry in exported(world.store, "kept")]
    return [(one.kind, one.model_id) for one in entries if one.kind.startswith("destroy")]


def weights_left(world: World) -> set[str]:
    """The affected versions whose weights their owners still have, by their disks."""
    left = set()
    for model in AFFECTED:
        digest = world.store.graph().model(model).digest
        if (world.root / OWNERS[model] / "objects" / f"{digest}.safetensors").exists():
            left.add(model)
    return left


def test_after_the_window_the_old_weights_are_gone_and_the_log_says_so(
    world: World, sleep: Sleep
) -> None:
    finish(world)
    world.coordinator.drive("kept")
    assert world.transport.actions() == []
    assert weights_left(world) == set(AFFECTED)
    assert GapKind.OLD_KEPT in {gap.kind for gap in report_of(world.store, "kept").gaps}
    assert all(one.destroy_us for one in coverage_of(world.store, "kept").models)

    sleep(HOUR + 1)
    world.coordinator.drive("kept")
    assert world.transport.actions() == [(name, "train.destroy") for name in NAMES]
    assert weights_left(world) == set()
    for model in AFFECTED:
        assert world.weights(f"{model}~kept").keys()
    assert sorted(kinds(world)) == [("destroyed", model) for model in AFFECTED]
    events = {e.event.model_id: e.event for e in exported(world.store, "kept")}
    assert events["r1"].actor == "owner:anna"
    assert events["r1"].digest_before == world.store.graph().model("r1").digest
    report = report_of(world.store, "kept")
    assert all(model.covered.destroyed_us for model in report.models)
    assert GapKind.OLD_KEPT not in {gap.kind for gap in report.gaps}
    assert report.times_us["last_destroyed"] >= report.times_us["ended"]
    # Once, and the campaign stays as it is.
    world.coordinator.drive("kept")
    assert world.transport.actions() == []
    assert world.store.campaign("kept").state is S.COMPLETE


def test_destroyed_version_cannot_be_rolled_back(world: World, sleep: Sleep) -> None:
    finish(world)
    sleep(HOUR + 1)
    world.coordinator.drive("kept")
    knowledge = world.knowledge()
    what = "its old weights were destroyed at 20"
    with pytest.raises(RequestError, match=f"'r1' cannot be put back: {what}"):
        world.store.roll_back("kept")
    assert world.knowledge() == knowledge


def test_after_the_window_what_is_there_still_is_rolled_back(world: World, sleep: Sleep) -> None:
    finish(world)
    sleep(HOUR + 1)
    world.store.roll_back("kept")
    world.coordinator.drive("kept")
    assert world.store.campaign("kept").state is S.ROLLED_BACK
    assert weights_left(world) == set(AFFECTED)


def test_within_the_window_it_can_be_rolled_back_and_nothing_is_destroyed_then(
    world: World, sleep: Sleep
) -> None:
    finish(world)
    sleep(HOUR - 60)
    world.store.roll_back("kept")
    sleep(HOUR + 1)
    world.coordinator.drive("kept")
    assert world.store.campaign("kept").state is S.ROLLED_BACK
    world.coordinator.drive("kept")
    assert "train.destroy" not in {action for _, action in world.transport.actions()}
    assert weights_left(world) == set(AFFECTED)


def test_without_a_window_everything_is_kept(world: World, sleep: Sleep) -> None:
    finish(world, seconds=0)
    sleep(100 * 366 * 24 * HOUR)
    world.coordinator.drive("kept")
    assert world.transport.actions() == []
    assert weights_left(world) == set(AFFECTED)


def test_owners_that_are_away_destroy_it_when_they_are_back(world: World, sleep: Sleep) -> None:
    finish(world)
    sleep(HOUR + 1)
    opened = OpenCampaigns(world.coordinator)
    world.transport.twists["ben", "train.destroy"] = gone
    assert "kept" in opened()
    world.coordinator.drive("kept")
    assert weights_left(world) == {"r2", "r6"}
    world.transport.twists.clear()
    world.transport.actions()
    assert "kept" in opened()
    with world.again() as again:
        again.coordinator.drive("kept")
        assert again.transport.actions() == [("ben", "train.destroy")]
    assert weights_left(world) == set()
    assert "kept" not in opened()


def test_failed_destruction_is_reported_and_asked_again(world: World, sleep: Sleep) -> None:
    finish(world)
    sleep(HOUR + 1)
    world.transport.twists["cleo", "train.destroy"] = broken
    for _ in range(3):
        world.coordinator.drive("kept")
    assert kinds(world).count(("destroy_refused", "r3")) == 1
    reason = "the old weights are not destroyed: owner cleo: disk on fire"
    assert world.reason("r3", "kept") == reason
    world.transport.twists.clear()
    world.coordinator.drive("kept")
    assert world.reason("r3", "kept") == ""
    assert weights_left(world) == set()


def test_answer_with_another_digest_is_refused(world: World, sleep: Sleep) -> None:
    def other(reply: pb.DestroyReply) -> None:
        reply.models[0].digest = "0" * 64

    finish(world)
    sleep(HOUR + 1)
    world.transport.twists["cleo", "train.destroy"] = lying(other)
    world.coordinator.drive("kept")
    assert "but its owner destroyed 0000" in world.reason("r3", "kept")
    assert not world.store.tasks("kept")["r3"].destroyed_us


def test_a_campaign_that_gave_owners_up_destroys_what_is_done_and_asks_for_nothing_else(
    world: World, sleep: Sleep
) -> None:
    request = make_request(request_id="kept")
    request.retention_seconds = HOUR
    world.coordinator.submit(request, deadline_us=now_us() - 1)
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.coordinator.run("kept")
    assert world.store.campaign("kept").state is S.PARTIAL
    world.transport.actions()
    sleep(HOUR + 1)
    world.coordinator.drive("kept")
    assert world.transport.actions() == [("anna", "train.destroy"), ("ben", "train.destroy")]
    assert weights_left(world) == {"r3"}
    assert world.states("kept")["r3"] is TaskState.PENDING


def test_a_window_of_more_than_a_century_is_refused(world: World) -> None:
    request = make_request(request_id="kept")
    request.retention_seconds = 2**63
    with pytest.raises(RequestError, match="a hundred years, but got 9223372036854775808"):
        world.coordinator.submit(request)


def test_agents_destroy_what_they_hold(world: World, sleep: Sleep) -> None:
    finish(world)
    sleep(HOUR + 1)
    with AgentsSide(world.root) as side, ExitStack() as agents:
        coordinator = Coordinator(world.store, side.transport, timeout=60.0)
        for name in NAMES[:2]:
            agents.enter_context(side.agent(name))
        coordinator.drive("kept")
        assert weights_left(world) == {"r3"}
        agents.enter_context(side.agent(NAMES[2]))
        coordinator.drive("kept")
    assert weights_left(world) == set()


def test_flower_carries_it(world: World) -> None:
    finish(world)
    digest = world.store.graph().model("r3").digest
    task = pb.DestroyTask(
        request_id="kept", models=[pb.ModelDestruction(model_id="r3", digest=digest)]
    )
    content: RecordDict = pack(task)
    app = build_client_app(lambda _: PointsOwner(world.root / "cleo", "cleo"))
    reply = unpack(call(app, "train.destroy", content).content, pb.DestroyReply)
    assert reply.models[0].outcome == pb.OUTCOME_APPLIED
    assert weights_left(world) == set(AFFECTED) - {"r3"}


def test_weights_that_another_version_keeps_are_a_gap_and_not_gone(
    world: World, sleep: Sleep
) -> None:
    with world.owned("r3") as owned:
        record, weights = owned.record("r3"), owned.weights("r3")
        same = replace(record, id="r3-copy", fisher_digest="", provenance=None, fisher_scale=None)
        owned.add(same, weights)
    finish(world)
    sleep(HOUR + 1)
    world.coordinator.drive("kept")
    report = report_of(world.store, "kept")
    assert {gap.kind: gap.models for gap in report.gaps}[GapKind.HELD_BY_ANOTHER] == ("r3",)
    (r3,) = (model for model in report.models if model.covered.model_id == "r3")
    assert (r3.held_by, r3.destroyed_us > 0) == ("r3-copy", True)
    assert r3.destroyed_us == world.store.tasks("kept")["r3"].destroyed_us


def test_holder_of_the_weights_must_be_a_version_id(world: World, sleep: Sleep) -> None:
    def lie(reply: pb.DestroyReply) -> None:
        reply.models[0].held_by = "Jane Doe, 1971"

    finish(world)
    sleep(HOUR + 1)
    world.transport.twists["cleo", "train.destroy"] = lying(lie)
    world.coordinator.drive("kept")
    assert not world.store.tasks("kept")["r3"].destroyed_us
    assert b"Jane" not in b"".join(world.store.audit_lines("kept"))
    world.transport.twists.clear()
    world.coordinator.drive("kept")
    assert world.store.tasks("kept")["r3"].destroyed_us
