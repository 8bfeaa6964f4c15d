"""Approvals by four eyes: they cover the approved plan, not versions that others add later."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.common.errors import RequestError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, ModelStatus
from disinherit.server.campaign.driver import OpenCampaigns
from disinherit.server.now import now_us
from disinherit.server.reports.report import coverage_of, report_of
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.store.approvals import find_plan_digest
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, World, copy, make_request
from tests.support.changes import look
from tests.support.owner import LABELS, PointsOwner

VERIFIED = dict.fromkeys(AFFECTED, TaskState.VERIFIED)
OPERATOR, APPROVER = "operator:op", "approver:ap"
TRANSFER = InheritanceKind.TRANSFER


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    with copy(built, tmp_path / "world") as world:
        world.coordinator.submit(make_request(), approval=True, actor=OPERATOR)
        yield world


def approve(world: World, plan: str = "") -> CampaignState:
    world.coordinator.submit(world.store.request("q"))
    return world.store.approve("q", plan, actor=APPROVER).state


def add(world: World, parent: str, id: str = "X", owner: str = "ben", actor: str = OPERATOR) -> str:
    """Register a version of an owner, that it has, below another."""
    with PointsOwner(world.root / owner, owner) as points:
        record = points.train(id, classes=LABELS, created_us=1, start=[])
    edge = Inheritance(parent, id, TRANSFER)
    stored, _ = world.store.register(record, [edge], actor=actor)
    with PointsOwner(world.root / owner, owner) as points:
        return points.store.record(stored.id).digest


def drive(world: World) -> None:
    for id in OpenCampaigns(world.coordinator)():
        world.coordinator.drive(id)


def audit(world: World, kind: str) -> list[bytes]:
    return [line for line in world.store.audit_lines("q") if f'"kind":"{kind}"'.encode() in line]


def test_an_operator_alone_cannot_extend_an_approved_campaign(world: World) -> None:
    assert approve(world) is CampaignState.RUNNING
    drive(world)
    assert world.store.campaign("q").state is CampaignState.COMPLETE
    digest = add(world, "r1")
    add(world, "X", "Y")
    drive(world)
    assert world.states() == {**VERIFIED, "X": TaskState.UNAPPROVED, "Y": TaskState.UNAPPROVED}
    assert "by the word of operator:op and not of its owner" in world.reason("X")
    assert world.store.campaign("q").state is CampaignState.PARTIAL
    graph = world.store.graph()
    assert (graph.model("X").status, graph.model("X").digest) == (ModelStatus.ACTIVE, digest)
    assert not graph.children("Y")
    (gap,) = [gap for gap in report_of(world.store, "q").gaps if gap.kind == "unapproved"]
    assert gap.models == ("X", "Y")

    # An approver who has looked lets them join.
    with pytest.raises(RequestError, match="need an approval of their own, but got none"):
        approve(world)
    plan = look(world.store, find_plan_digest, "q")
    assert approve(world, plan) is CampaignState.RUNNING
    assert plan.encode() in audit(world, "approved")[-1]
    assert world.states()["X"] is TaskState.PENDING


@pytest.mark.parametrize("actor", ["owner:ben", "coordinator"])
def test_versions_recorded_by_owner_or_coordinator_need_no_approval(
    world: World, actor: str
) -> None:
    approve(world)
    drive(world)
    add(world, "r1", actor=actor)
    drive(world)
    assert world.states()["X"] is not TaskState.UNAPPROVED


def test_version_below_unapproved_version_waits_with_it(world: World) -> None:
    approve(world)
    add(world, "r1")
    add(world, "X", "Y", actor="owner:ben")
    drive(world)
    assert world.states()["Y"] is TaskState.UNAPPROVED


def test_plan_changed_after_review_is_not_approved(world: World) -> None:
    looked_at = look(world.store, find_plan_digest, "q")
    add(world, "r1")
    with pytest.raises(RequestError, match="a model has joined. Look at it again"):
        approve(world, looked_at)
    assert world.store.campaign("q").state is CampaignState.AWAITING_APPROVAL
    # Without a plan it is what was submitted.
    assert approve(world) is CampaignState.RUNNING
    assert world.store.campaign("q").approved_plan == looked_at
    drive(world)
    assert world.states() == {**VERIFIED, "X": TaskState.UNAPPROVED}


def test_reviewed_plan_is_approved_with_earlier_late_versions(world: World) -> None:
    add(world, "r1")
    world.coordinator.submit(world.store.request("q"))
    assert world.states()["X"] is TaskState.UNAPPROVED
    assert approve(world, look(world.store, find_plan_digest, "q")) is CampaignState.RUNNING
    assert world.states()["X"] is TaskState.PENDING


def test_plan_digest_covers_request_deadline_and_lineage(world: World) -> None:
    first = look(world.store, find_plan_digest, "q")
    assert look(world.store, find_plan_digest, "q") == first
    other = make_request(request_id="q2")
    digests = {first}
    changed = [pb.UnlearningRequest() for _ in range(5)]
    for number, request in enumerate(changed):
        request.CopyFrom(other)
        request.id = f"q{number + 2}"
    changed[0].reason = "another"
    changed[1].retention_seconds = 1
    changed[2].method.alpha = 1e-12
    changed[3].roll_out.max_retain_drop = 100.0
    for request in changed:
        world.coordinator.submit(request, approval=True, actor=OPERATOR)
        digests.add(look(world.store, find_plan_digest, request.id))
    world.coordinator.submit(
        make_request(request_id="q9"), approval=True, deadline_us=now_us() + 10**9
    )
    digests.add(look(world.store, find_plan_digest, "q9"))
    assert len(digests) == 7


def test_without_approval_every_version_joins(built: Path, tmp_path: Path) -> None:
    with copy(built, tmp_path / "other") as world:
        world.coordinator.submit(make_request())
        add(world, "r1")
        drive(world)
        assert world.states()["X"] is not TaskState.UNAPPROVED


# Others than the owner cannot keep a campaign from going back, or halt it


def test_edges_recorded_by_others_do_not_block_a_roll_back(world: World) -> None:
    approve(world)
    drive(world)
    for id, owner, actor in (("c", "cleo", "owner:cleo"), ("o", "ben", OPERATOR)):
        record = ModelRecord(id, owner, "x", LABELS, "0a", 1)
        world.store.register(record, [Inheritance("r2~q", id, TRANSFER)], actor=actor)
    world.store.roll_back("q", ["r2"], "too much was lost", actor=APPROVER)
    said = "too much was lost (others say that they derived c, o from r2~q)"
    assert world.reason("r2") == said
    world.coordinator.run("q")
    assert world.states()["r2"] is TaskState.ROLLED_BACK


def test_edge_recorded_by_its_owner_blocks_a_roll_back(world: World) -> None:
    approve(world)
    drive(world)
    record = ModelRecord("b", "ben", "x", LABELS, "0a", 1)
    world.store.register(record, [Inheritance("r2~q", "b", TRANSFER)], actor="owner:ben")
    with pytest.raises(RequestError, match="Expected nothing to be derived from 'r2~q'"):
        world.store.roll_back("q", ["r2"], actor=APPROVER)


def test_late_descendants_of_an_owner_do_not_halt_a_roll_out(built: Path, tmp_path: Path) -> None:
    with copy(built, tmp_path / "other") as world:
        roll_out = pb.RollOut(max_error_rate=0.1, canary_count=1)
        request = make_request()
        request.roll_out.CopyFrom(roll_out)
        world.coordinator.submit(request, approval=True, actor=OPERATOR)
        for number in range(40):
            junk = ModelRecord(f"junk-{number}", "cleo", "x", LABELS, "0a", 1)
            edge = Inheritance("r1", junk.id, TRANSFER)
            world.store.register(junk, [edge], actor="owner:cleo")
        approve(world)
        for _ in range(4):
            drive(world)
        states = world.states()
        assert {model: states[model] for model in AFFECTED} == VERIFIED
        assert {states[f"junk-{number}"] for number in range(40)} == {TaskState.FAILED}
        assert world.store.campaign("q").state is CampaignState.RUNNING


def test_plan_of_a_successor_includes_descendants_of_its_original(
    built: Path, tmp_path: Path
) -> None:
    with copy(built, tmp_path / "heirs") as world:
        world.coordinator.submit(make_request())
        assert world.coordinator.run("q").outcome == "complete"
        request = make_request({"r1~q": ["dog"]}, "again")
        world.coordinator.submit(request, approval=True, actor=OPERATOR)
        before = look(world.store, find_plan_digest, "again")
        add(world, "r1")
        assert "X" in {one.model_id for one in coverage_of(world.store, "again").models}
        assert look(world.store, find_plan_digest, "again") != before
