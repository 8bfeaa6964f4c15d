"""Every call of the coordinator's service, over a real gRPC server with real owners behind it."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from disinherit.common.audit.line_messages import lines_of
from disinherit.common.graph.proto import graph_to_proto, inheritance_to_proto, record_to_proto
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.limits import CALLER_WATCHES
from disinherit.server.store.graph import find_holders
from disinherit.server.transport.base import Ask
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2
from tests.support import campaign
from tests.support.changes import look
from tests.support.owner import LABELS
from tests.support.service import TIMEOUT, Running, make_request, serving

Code = grpc.StatusCode


def refused(call: Any, code: grpc.StatusCode) -> str:
    """The details of a call that is refused with this code, in one line."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    assert error.code() is code
    details = str(error.details())
    assert "\n" not in details
    assert "Traceback" not in details
    return details


def submit(running: Running, request_id: str = "q", *, again: bool = False) -> pb.RequestStatus:
    message = pb.SubmitRequestRequest(request=make_request(request_id), again=again)
    status = running.client("operator").SubmitRequest(message)
    assert isinstance(status, pb.RequestStatus)
    return status


def approve(running: Running, request_id: str = "q") -> None:
    running.client("approver").ApproveRequest(pb.ControlRequest(id=request_id))


def await_end(running: Running, request_id: str = "q") -> list[pb.RequestStatus]:
    return list(running.client("viewer").WatchRequest(pb.GetRequestRequest(id=request_id)))


# Models


def new_version(owner: str = "anna", id: str = "new") -> graph_pb2.ModelRecord:
    return record_to_proto(ModelRecord(id, owner, "a", LABELS, "ab" * 32, 7))


def derived(id: str = "new", parent: str = "r4") -> list[graph_pb2.Inheritance]:
    return [inheritance_to_proto(Inheritance(parent, id, InheritanceKind.INCREMENTAL))]


def test_the_coordinator_sets_the_creation_time(running: Running) -> None:
    before = time.time_ns() // 1000
    message = pb.RegisterModelRequest(record=new_version(), parents=derived())
    record = running.client("anna").RegisterModel(message).record
    assert before <= record.created_us <= time.time_ns() // 1000
    graph = running.world.store.graph()
    assert graph.model("new").created_us == record.created_us
    assert [edge.parent for edge in graph.parents("new")] == ["r4"]
    assert running.client("operator").RegisterModel(message).record == record  # and not again


def test_a_repeated_registration_keeps_a_version_superseded(running: Running) -> None:
    submit(running)
    approve(running)
    await_end(running)
    record = record_to_proto(running.world.store.graph().model("r1"))
    assert record.status == graph_pb2.MODEL_STATUS_SUPERSEDED
    record.status = graph_pb2.MODEL_STATUS_ACTIVE
    answer = running.client("anna").RegisterModel(pb.RegisterModelRequest(record=record))
    assert answer.record.status == graph_pb2.MODEL_STATUS_SUPERSEDED


def test_an_owner_registers_and_lists_only_its_own_models(running: Running) -> None:
    anna = running.client("anna")
    message = pb.RegisterModelRequest(record=new_version("ben"))
    assert "'anna'" in refused(lambda: anna.RegisterModel(message), Code.PERMISSION_DENIED)
    message = pb.RegisterModelRequest(record=new_version(id="r2"))  # which is ben's
    why = refused(lambda: anna.RegisterModel(message), Code.INVALID_ARGUMENT)
    assert "ben" not in why
    assert "new" not in running.world.store.graph()
    listed = anna.ListModels(pb.ListModelsRequest())
    assert [model.id for model in listed.models] == ["d", "r1", "r4"]
    other = pb.ListModelsRequest(owner="ben")
    refused(lambda: anna.ListModels(other), Code.PERMISSION_DENIED)


def test_a_withdrawn_registration_frees_its_id(running: Running) -> None:
    anna = running.client("anna")
    before = running.world.store.graph()
    wrong = pb.RegisterModelRequest(record=new_version(), parents=derived())
    wrong.record.provenance.dataset = "pets"
    wrong.record.provenance.samples_per_class["cat"] = 3
    anna.RegisterModel(wrong)
    withdraw = pb.WithdrawModelRequest(id="new")
    taken = anna.WithdrawModel(withdraw).record
    assert list(taken.labels) == list(LABELS)
    graph = running.world.store.graph()
    assert "new" not in graph
    assert graph.edges() == before.edges()
    assert "new" not in {record.id for record in look(running.world.store, find_holders, ["cat"])}
    refused(lambda: anna.WithdrawModel(withdraw), Code.NOT_FOUND)  # it is gone
    right = pb.RegisterModelRequest(record=new_version(), parents=derived(parent="r1"))
    anna.RegisterModel(right)
    assert [e.parent for e in running.world.store.graph().parents("new")] == ["r1"]
    lines = [json.loads(line) for line in running.world.store.audit_lines()]
    kinds = [line["kind"] for line in lines if line.get("model") == "new"]
    assert kinds == ["model_registered", "model_withdrawn", "model_registered"]


def test_a_version_with_dependents_is_not_withdrawn(running: Running) -> None:
    operator, anna = running.client("operator"), running.client("anna")
    why = refused(
        lambda: operator.WithdrawModel(pb.WithdrawModelRequest(id="r1")), Code.FAILED_PRECONDITION
    )
    assert "nothing to be derived from 'r1'" in why
    ours = refused(lambda: anna.WithdrawModel(pb.WithdrawModelRequest(id="r2")), Code.NOT_FOUND)
    nobody = refused(lambda: anna.WithdrawModel(pb.WithdrawModelRequest(id="xx")), Code.NOT_FOUND)
    assert ours == nobody.replace("xx", "r2")  # whether others have such a model is not said
    submit(running)
    approve(running)
    await_end(running)
    leaf = pb.WithdrawModelRequest(id="r6")
    why = refused(lambda: operator.WithdrawModel(leaf), Code.FAILED_PRECONDITION)
    assert "'r6'" in why
    made = pb.WithdrawModelRequest(id="r6~q")
    why = refused(lambda: operator.WithdrawModel(made), Code.FAILED_PRECONDITION)
    assert "unlearning made 'r6~q'" in why
    assert {"r1", "r2", "r6", "r6~q"} <= {
        model.id for model in running.world.store.graph().models()
    }


@pytest.mark.parametrize(
    ("record", "parents"),
    [
        (graph_pb2.ModelRecord(), []),
        (graph_pb2.ModelRecord(id="x/y", owner="anna"), []),
        (new_version(), derived(parent="nobody")),
        (new_version(), derived(id="other")),
        (new_version(), [graph_pb2.Inheritance(parent="r4", child="new", weight=1.0)]),
    ],
)
def test_a_version_that_the_graph_refuses_is_not_stored(
    record: graph_pb2.ModelRecord, parents: list[graph_pb2.Inheritance], running: Running
) -> None:
    before = running.world.knowledge()
    message = pb.RegisterModelRequest(record=record, parents=parents)
    refused(lambda: running.client("operator").RegisterModel(message), Code.INVALID_ARGUMENT)
    assert running.world.knowledge() == before


def test_pages_of_models(running: Running) -> None:
    viewer = running.client("viewer")
    everything = [model.id for model in viewer.ListModels(pb.ListModelsRequest()).models]
    found: list[str] = []
    sizes: list[int] = []
    token = ""
    while not sizes or token:
        page = viewer.ListModels(pb.ListModelsRequest(page_size=3, page_token=token))
        found += [model.id for model in page.models]
        sizes.append(len(page.models))
        token = page.next_page_token
    assert found == everything == list(campaign.OWNERS)
    assert sizes == [3, 3, 1]
    mine = viewer.ListModels(pb.ListModelsRequest(owner="ben", page_size=1))
    for wrong in ("x", "!", mine.next_page_token, mine.next_page_token[:-3]):
        message = pb.ListModelsRequest(page_token=wrong)
        why = refused(lambda m=message: viewer.ListModels(m), Code.INVALID_ARGUMENT)
        assert "page token" in why


def test_the_graph(running: Running) -> None:
    graph = graph_pb2.Graph()
    for part in running.client("viewer").GetGraph(pb.GetGraphRequest()):
        graph.MergeFrom(part)
    expected = graph_to_proto(running.world.store.graph())
    expected.models.sort(key=lambda model: (model.created_us, model.id))
    for one in (graph, expected):
        one.edges.sort(key=lambda edge: (edge.child, edge.parent))
    assert graph == expected


# Requests


def without_names(status: pb.RequestStatus) -> pb.RequestStatus:
    """A status as viewers get it: who submitted and approved is for other roles."""
    assert status.submitted_by
    status.ClearField("submitted_by")
    status.ClearField("approved_by")
    return status


def test_a_campaign_from_submission_to_its_end(running: Running) -> None:
    status = submit(running)
    assert status.state == pb.CAMPAIGN_STATE_AWAITING_APPROVAL
    assert status.request == make_request()
    assert status.tasks == {"pending": 5}
    time.sleep(0.1)
    assert not running.world.transport.asked  # nothing goes out before it is approved
    watch = running.client("viewer").WatchRequest(pb.GetRequestRequest(id="q"))
    status.ClearField("plan_sha256")  # which is for those who look once
    assert next(watch) == without_names(status)
    approve(running)
    followed = list(watch)
    assert followed[-1].state == pb.CAMPAIGN_STATE_COMPLETE
    assert followed[-1].tasks == {"verified": 5}
    assert running.client("viewer").GetRequest(pb.GetRequestRequest(id="q")) == followed[-1]
    assert await_end(running) == [followed[-1]]


def test_a_repeated_submission_changes_nothing(running: Running) -> None:
    first = submit(running)
    assert submit(running) == first
    other = make_request()
    other.reason = "another"
    message = pb.SubmitRequestRequest(request=other)
    why = refused(lambda: running.client("operator").SubmitRequest(message), Code.INVALID_ARGUMENT)
    assert "already used" in why
    approve(running)
    end = await_end(running)[-1]
    assert without_names(submit(running)) == end


def test_without_approval_a_campaign_runs_at_once(built: Path, tmp_path: Path) -> None:
    with serving(shutil.copytree(built, tmp_path / "copy"), approval=False) as running:
        submit(running)
        assert await_end(running)[-1].state == pb.CAMPAIGN_STATE_COMPLETE


def test_a_request_that_cannot_be_planned_is_not_stored(running: Running) -> None:
    operator = running.client("operator")
    # As messages, since no such `Request` can be made.
    of_nothing, misnamed, negative = (make_request() for _ in range(3))
    of_nothing.ClearField("roots")
    misnamed.id = "x/y"
    negative.method.alpha = -1.0
    for request in (
        of_nothing,
        misnamed,
        negative,
        campaign.make_request({"nobody": ["cat"]}),
        campaign.make_request({"r1": ["dodo"]}),
    ):
        message = pb.SubmitRequestRequest(request=request)
        why = refused(lambda m=message: operator.SubmitRequest(m), Code.INVALID_ARGUMENT)
        dry = pb.PlanRequestRequest(request=request)
        assert refused(lambda m=dry: operator.PlanRequest(m), Code.INVALID_ARGUMENT) == why
    message = pb.SubmitRequestRequest(request=make_request(), deadline_seconds=2**63)
    refused(lambda: operator.SubmitRequest(message), Code.INVALID_ARGUMENT)
    assert list(operator.ListRequests(pb.ListRequestsRequest()).requests) == []


def test_a_plan_lists_what_a_submission_would_do_and_stores_nothing(running: Running) -> None:
    operator = running.client("operator")
    before = list(running.world.store.audit_lines())
    message = pb.PlanRequestRequest(request=campaign.make_request(mechanism="delta"), page_size=2)
    pages = [operator.PlanRequest(message)]
    while pages[-1].next_page_token:
        message.page_token = pages[-1].next_page_token
        pages.append(operator.PlanRequest(message))
    models = [model for page in pages for model in page.models]
    assert [model.model_id for model in models] == list(campaign.AFFECTED)
    assert {model.model_id for model in models if model.root} == {"r1", "r2"}
    assert {model.state for model in models} == {"pending"}
    assert all(0 < share.coefficient <= 1 for model in models for share in model.shares)
    assert {share.root for share in models[-1].shares} == {"r1", "r2"}
    assert pages[0].notes or not any(page.notes for page in pages)
    assert list(operator.ListRequests(pb.ListRequestsRequest()).requests) == []
    assert list(running.world.store.audit_lines())[1:] == before[1:]
    assert not running.world.transport.asked
    message.page_token = "nobody"
    why = refused(lambda: operator.PlanRequest(message), Code.INVALID_ARGUMENT)
    assert "page token" in why


def test_a_plan_of_a_submitted_request_is_of_that_one(running: Running) -> None:
    submit(running)
    operator = running.client("operator")
    planned = operator.PlanRequest(pb.PlanRequestRequest(request=make_request()))
    assert [model.model_id for model in planned.models] == list(campaign.AFFECTED)
    assert {model.state for model in planned.models} == {"pending"}
    approve(running)
    await_end(running)
    planned = operator.PlanRequest(pb.PlanRequestRequest(request=make_request()))
    assert {model.state for model in planned.models} == {"verified"}, "it would change nothing"
    other = make_request()
    other.reason = "another"
    message = pb.PlanRequestRequest(request=other)
    assert "already used" in refused(lambda: operator.PlanRequest(message), Code.INVALID_ARGUMENT)


def test_an_unknown_request_is_not_found(running: Running) -> None:
    operator, approver = running.client("operator"), running.client("approver")
    for call, message in (
        (operator.GetRequest, pb.GetRequestRequest(id="x")),
        (operator.GetCoverage, pb.GetCoverageRequest(id="x")),
        (operator.GetReport, pb.GetReportRequest(id="x")),
        (lambda m: list(operator.GetAttestation(m)), pb.GetAttestationRequest(id="x")),
        (operator.PauseRequest, pb.ControlRequest(id="x")),
        (operator.ResumeRequest, pb.ResumeRequestRequest(id="x")),
        (operator.AbortRequest, pb.ControlRequest(id="x")),
        (approver.ApproveRequest, pb.ControlRequest(id="x")),
        (lambda m: list(operator.WatchRequest(m)), pb.GetRequestRequest(id="x")),
        (lambda m: list(operator.ExportAudit(m)), pb.ExportAuditRequest(request_id="x")),
    ):
        assert "'x'" in refused(lambda c=call, m=message: c(m), Code.NOT_FOUND)


def test_an_export_takes_one_message_for_its_lines_if_it_may(running: Running) -> None:
    """Each message is waited for, so under load it is their number that an export takes long by."""
    submit(running)
    operator = running.client("operator")
    alone = list(operator.ExportAudit(pb.ExportAuditRequest(request_id="q")))
    together = list(operator.ExportAudit(pb.ExportAuditRequest(request_id="q", several=True)))
    assert len(alone) > 1
    assert not any(message.more for message in alone)
    assert len(together) == 1
    # The first line has the time of its signature.
    assert list(lines_of(together))[1:] == list(lines_of(alone))[1:]


def test_pause_resume_and_abort(running: Running) -> None:
    operator = running.client("operator")
    submit(running)
    message = pb.ControlRequest(id="q")
    why = refused(lambda: operator.PauseRequest(message), Code.FAILED_PRECONDITION)
    assert "awaiting_approval" in why
    # An owner stays away, so that the campaign stays open.
    running.world.transport.twists["cleo", "train.unlearn"] = campaign.gone
    approve(running)
    watch = operator.WatchRequest(pb.GetRequestRequest(id="q"))
    next(status for status in watch if dict(status.tasks) == {"verified": 4, "pending": 1})
    watch.cancel()
    assert operator.PauseRequest(message).state == pb.CAMPAIGN_STATE_PAUSED
    assert operator.PauseRequest(message).state == pb.CAMPAIGN_STATE_PAUSED
    running.world.transport.twists.clear()
    asked = len(running.world.transport.asked)
    submit(running)  # the same again: the driver looks
    time.sleep(0.1)
    assert len(running.world.transport.asked) == asked
    # It was approved without a deadline: one person alone gives it none.
    alone = pb.ResumeRequestRequest(id="q", deadline_seconds=1)
    why = refused(lambda: operator.ResumeRequest(alone), Code.PERMISSION_DENIED)
    assert "Expected an approver to change the deadline of 'q'" in why
    second = running.client("approver")
    resumed = second.ResumeRequest(pb.ResumeRequestRequest(id="q", deadline_seconds=3600))
    assert resumed.deadline_us - time.time_ns() / 1000 == pytest.approx(3.6e9, rel=0.01)
    assert await_end(running)[-1].state == pb.CAMPAIGN_STATE_COMPLETE
    why = refused(lambda: submit(running, "r"), Code.FAILED_PRECONDITION)
    assert "but cat at r1 was forgotten by q on 2" in why
    submit(running, "r", again=True)
    assert operator.AbortRequest(pb.ControlRequest(id="r")).state == pb.CAMPAIGN_STATE_ABORTED
    refused(lambda: approve(running, "r"), Code.FAILED_PRECONDITION)


def test_pages_of_requests(running: Running) -> None:
    for name in ("b", "a", "c"):
        submit(running, name)
    viewer = running.client("viewer")
    first = viewer.ListRequests(pb.ListRequestsRequest(page_size=2))
    assert [status.request.id for status in first.requests] == ["b", "a"]
    token = first.next_page_token
    second = viewer.ListRequests(pb.ListRequestsRequest(page_size=2, page_token=token))
    assert [status.request.id for status in second.requests] == ["c"]
    assert second.next_page_token == ""


def test_coverage_has_the_successor_of_every_affected_version(running: Running) -> None:
    submit(running)
    approve(running)
    await_end(running)
    viewer = running.client("viewer")
    found: list[pb.ModelCoverage] = []
    token = ""
    while token or not found:
        page = viewer.GetCoverage(pb.GetCoverageRequest(id="q", page_size=2, page_token=token))
        found += page.models
        token = page.next_page_token
    graph = running.world.store.graph()
    assert [one.model_id for one in found] == list(campaign.AFFECTED)
    for one in found:
        assert (one.state, one.reason) == ("verified", "")
        assert one.owner == campaign.OWNERS[one.model_id]
        assert one.digest_before == graph.model(one.model_id).digest
        assert one.digest_after == graph.model(one.successor_id).digest
        assert one.updated_us > 0
    message = pb.GetCoverageRequest(id="q", page_token="x")
    refused(lambda: viewer.GetCoverage(message), Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_late_descendant_opens_an_ended_campaign_again(running: Running, at_once: bool) -> None:
    submit(running)
    approve(running)
    await_end(running)
    anna = running.client("anna")
    if not at_once:  # what it was derived from comes later
        anna.RegisterModel(pb.RegisterModelRequest(record=new_version()))
        time.sleep(0.5)
        assert "new" not in running.world.store.tasks("q")
    anna.RegisterModel(pb.RegisterModelRequest(record=new_version(), parents=derived()))
    deadline = time.monotonic() + TIMEOUT
    while "new" not in running.world.store.tasks("q"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watch = running.client("viewer").WatchRequest(pb.GetRequestRequest(id="q"))
    assert sum(next(watch).tasks.values()) == 6
    watch.cancel()


# Failures


def test_a_cancelled_watch_frees_its_slot(running: Running) -> None:
    submit(running)
    viewer = running.client("viewer")
    message = pb.GetRequestRequest(id="q")
    watches = [viewer.WatchRequest(message) for _ in range(CALLER_WATCHES.most)]
    for watch in watches:
        next(watch)
    why = refused(lambda: next(viewer.WatchRequest(message)), Code.RESOURCE_EXHAUSTED)
    assert "Try again later" in why
    viewer.GetRequest(message)  # others are served all the same
    for watch in watches:
        watch.cancel()
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            next(viewer.WatchRequest(message))
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_watch_ends_at_its_deadline(running: Running) -> None:
    submit(running)
    watch = running.client("viewer").WatchRequest(pb.GetRequestRequest(id="q"), timeout=0.3)
    refused(lambda: list(watch), Code.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_store_that_fails_is_unavailable(running: Running) -> None:
    running.world.store.close()
    # In place and at full length: the service maps "-shm", and dies where a mapped file is cut.
    for name in ("coordinator.db", "coordinator.db-wal"):
        path = running.world.root / name
        with path.open("r+b") as file:
            file.write(b"not a database" * (path.stat().st_size // 14))
    viewer = running.client("viewer")
    why = refused(lambda: list(viewer.GetGraph(pb.GetGraphRequest())), Code.UNAVAILABLE)
    assert "coordinator.db" in why


def test_an_unexpected_error_appears_only_in_the_log(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(_: object) -> None:
        raise ZeroDivisionError("internal detail")

    monkeypatch.setattr("disinherit.server.service.models.graph_messages", explode)
    viewer = running.client("viewer")
    why = refused(lambda: list(viewer.GetGraph(pb.GetGraphRequest())), Code.INTERNAL)
    assert "internal detail" not in why
    assert "internal detail" in caplog.text


def test_a_slow_owner_does_not_hold_up_the_service(running: Running) -> None:
    held: list[Ask] = []

    def slow(ask: Ask, honest: Any) -> Any:
        held.append(ask)
        time.sleep(1.0)
        return honest()

    running.world.transport.twists["anna", "train.unlearn"] = slow
    submit(running)
    approve(running)
    while not held:
        time.sleep(0.01)
    started = time.monotonic()
    status = running.client("viewer").GetRequest(pb.GetRequestRequest(id="q"))
    assert time.monotonic() - started < 0.5
    assert status.state == pb.CAMPAIGN_STATE_RUNNING
    assert await_end(running)[-1].state == pb.CAMPAIGN_STATE_COMPLETE
