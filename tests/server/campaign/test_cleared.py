"""Claims that earlier requests had cleared a model, compared with the records."""

import secrets
from pathlib import Path

import pytest
from sqlalchemy import select, update

from disinherit.common.audit.gaps import GapKind
from disinherit.server.reports.report import report_of
from disinherit.server.states import TaskState
from disinherit.server.store.tables import TASKS
from disinherit.v1 import unlearning_pb2 as pb
from tests.support import owner
from tests.support.campaign import World, copy, lying, make_method, make_request
from tests.support.owner import samples_root, trained_on

MADE = ("r1~q", "r2~q", "r3~q", "r6~q")


@pytest.fixture
def world(submitted: World) -> World:
    return submitted


def claimed(reply: pb.UnlearnReply) -> None:
    for result in reply.models:
        result.outcome, result.error = pb.OUTCOME_APPLIED, ""
        result.ClearField("forget")
        result.cleared_before = result.cleared_recorded = True
        result.forgotten.append("cat")
        for selection in result.selections:
            selection.rows[:] = [0] * len(selection.rows)


def ask_again(world: World, *classes: str) -> None:
    """Ask for classes once more, with a strength at which nothing is selected."""
    world.coordinator.submit(make_request({"r1": classes}, "again", alpha=1e30, row_scoped=False))
    world.coordinator.run("again")


def unrecorded(world: World, request_id: str = "again") -> tuple[str, ...]:
    gaps = report_of(world.store, request_id).gaps
    return next((gap.models for gap in gaps if gap.kind is GapKind.CLEARED_UNRECORDED), ())


def test_a_trained_model_that_nothing_was_forgotten_in_is_ineffective(world: World) -> None:
    world.transport.twists["cleo", "train.unlearn"] = lying(claimed)
    assert world.coordinator.run("q").outcome == "partial"
    assert world.states()["r3"] is TaskState.INEFFECTIVE
    assert "by the coordinator's records they had not" in world.reason("r3")
    world.store.roll_back("q", ["r3"], actor="tests")
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.ROLLED_BACK


def test_what_the_records_show_is_verified_without_reservation(world: World) -> None:
    world.coordinator.run("q")
    ask_again(world, "cat")
    tasks = world.store.tasks("again")
    assert {task.state for model, task in tasks.items() if model in MADE} == {TaskState.VERIFIED}
    results = [task.result for model, task in tasks.items() if model in MADE]
    assert all(one is not None and one.cleared_before for one in results)
    assert unrecorded(world) == ()


def test_what_the_records_do_not_tell_is_a_gap(world: World) -> None:
    world.coordinator.run("q")
    with world.store._database.writing() as db:  # as an older coordinator left its tasks
        for row in db.execute(select(TASKS.c.model_id, TASKS.c.result)).all():
            result = pb.ModelResult.FromString(row.result)
            del result.forgotten[:]
            older = update(TASKS).where(TASKS.c.model_id == row.model_id)
            db.execute(older.values(result=result.SerializeToString()))
    ask_again(world, "cat")
    assert world.states("again")["r3~q"] is TaskState.VERIFIED
    assert unrecorded(world) == MADE


def test_another_class_was_not_cleared_by_an_earlier_request(world: World) -> None:
    world.coordinator.run("q")
    world.transport.twists["cleo", "train.unlearn"] = lying(claimed)
    ask_again(world, "dog")
    assert world.states("again")["r3~q"] is TaskState.INEFFECTIVE
    assert "by the coordinator's records they had not" in world.reason("r3~q", "again")


def test_samples_have_other_digests_in_every_request_so_records_cannot_contradict(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = copy(built, tmp_path / "world")
    kept = trained_on(world.store.records(["r2"])["r2"])
    monkeypatch.setattr(owner, "trained_on", lambda record: trained_on(record) or kept)

    def forgotten(reply: pb.UnlearnReply) -> None:
        for result in reply.models:
            result.outcome, result.error = pb.OUTCOME_APPLIED, ""
            result.ClearField("forget")

    def cleared(reply: pb.UnlearnReply) -> None:
        forgotten(reply)
        for result in reply.models:
            result.cleared_before = True
            for selection in result.selections:
                selection.rows[:] = [0] * len(selection.rows)

    method = make_method(scope="all", row_scoped=False, alpha=10.0).to_proto()
    for model, request_id, lie in (("r2", "one", forgotten), ("r2~one", "two", cleared)):
        world.transport.twists["ben", "train.unlearn"] = lying(lie)
        root = samples_root("r2", world.root / "ben", ["owl-5"], secrets.token_hex(16))
        root.model_id = model
        asked = pb.UnlearningRequest(id=request_id, roots=[root], method=method)
        world.coordinator.submit(asked)
        world.coordinator.run(request_id)
        assert world.states(request_id)[model] is TaskState.VERIFIED, world.reason(
            model, request_id
        )
    assert "r2~one" in unrecorded(world, "two")
