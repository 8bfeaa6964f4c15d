"""Times, figures and decisions that reports of campaigns are made of, over real gRPC."""

import time

import pytest

from disinherit.common.audit.export import read_entry
from disinherit.server.campaign.outcomes import outcome_of
from disinherit.server.states import Task
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2
from tests.server.service.test_calls import approve, await_end, submit
from tests.support.agent import wait_for
from tests.support.campaign import AFFECTED, gone
from tests.support.service import Running


def coverage(running: Running) -> dict[str, pb.ModelCoverage]:
    answer = running.client("viewer").GetCoverage(pb.GetCoverageRequest(id="q"))
    return {model.model_id: model for model in answer.models}


def test_a_finished_campaign_says_who_was_told_when_and_what_was_measured(
    running: Running,
) -> None:
    begin = time.time_ns() // 1000
    submit(running)
    assert {
        (one.told_us, one.acknowledged_us, one.done_us) for one in coverage(running).values()
    } == {(0, 0, 0)}
    approve(running)
    await_end(running)
    end = time.time_ns() // 1000
    found = coverage(running)
    assert sorted(found) == sorted(AFFECTED)
    for one in found.values():
        assert begin <= one.told_us <= one.acknowledged_us <= one.done_us <= end, one
        assert one.HasField("measured"), one
    report = running.client("viewer").GetReport(pb.GetReportRequest(id="q"))
    assert {one.coverage.model_id: one.coverage for one in report.models} == found
    summary = report.summary
    assert [one.kind for one in summary.decisions] == ["received", "approved", "completed"]
    assert (
        summary.times_us["received"] == summary.status.received_us == summary.decisions[0].time_us
    )
    last = read_entry(list(running.world.store.audit_lines())[-1])
    assert (summary.log_sequence, summary.log_head) == (last.sequence, last.hash)
    (key,) = running.client("viewer").GetSigningKeys(pb.GetSigningKeysRequest()).keys
    assert summary.key_id == key.key_id


def test_an_owner_that_was_away_is_told_when_it_was_reached(running: Running) -> None:
    running.world.transport.twists["cleo", "train.unlearn"] = gone
    submit(running)
    approve(running)
    wait_for(lambda: coverage(running)["r4"].done_us > 0)
    assert coverage(running)["r3"].reason == "owner cleo is not connected"
    assert (coverage(running)["r3"].told_us, coverage(running)["r3"].acknowledged_us) == (0, 0)
    del running.world.transport.twists["cleo", "train.unlearn"]
    back = time.time_ns() // 1000
    running.service._heard_of("cleo")
    await_end(running)
    assert coverage(running)["r3"].told_us >= back
    running.client("operator").ResendRequest(pb.ControlRequest(id="q"))
    first = coverage(running)["r3"]
    assert first.told_us >= back  # still the first time
    await_end(running)
    again = coverage(running)["r3"]
    assert (again.told_us, again.acknowledged_us) == (first.told_us, first.acknowledged_us)
    assert again.done_us > first.acknowledged_us
    report = running.client("operator").GetReport(pb.GetReportRequest(id="q"))
    assert "resent" in [one.kind for one in report.summary.decisions]


def test_names_of_those_that_decided_are_for_those_that_may_read_the_log(
    running: Running,
) -> None:
    submit(running)
    approve(running)
    await_end(running)
    names = ("operator:operator", "approver:approver")
    for who, expected in (("operator", names), ("approver", names), ("viewer", ("", ""))):
        client = running.client(who)
        status = client.GetRequest(pb.GetRequestRequest(id="q"))
        (listed,) = client.ListRequests(pb.ListRequestsRequest()).requests
        (watched,) = client.WatchRequest(pb.GetRequestRequest(id="q"))
        summary = client.GetReport(pb.GetReportRequest(id="q")).summary
        for found in (status, listed, watched, summary.status):
            assert (found.submitted_by, found.approved_by) == expected
            assert 0 < found.received_us < found.approved_us
        actors = [one.actor for one in summary.decisions]
        assert actors == ["", "", ""] if who == "viewer" else [*names, "coordinator"]


@pytest.mark.parametrize("claimed", [False, True])
def test_what_was_hardly_known_before_is_kept_apart(claimed: bool) -> None:
    """It shows nothing, but a report can say how little it was; owners cannot claim it."""
    little = unlearning_pb2.Recognition(
        measure="accuracy", before=0.02, after=0.01, margin=0.05, samples=100, source="evaluation"
    )
    result = unlearning_pb2.ModelResult(
        model_id="m",
        outcome=unlearning_pb2.OUTCOME_NOT_REACHED,
        forget=None if claimed else little,
        hardly_known=little if claimed else None,
    )
    sent = unlearning_pb2.UnlearnTask(fishers=[unlearning_pb2.FisherPacket()])
    model = unlearning_pb2.ModelTask(model_id="m")
    task = outcome_of(Task("m", "anna"), result, sent, model)
    assert isinstance(task, Task)
    assert task.result is not None
    assert not task.result.HasField("forget")
    assert task.result.hardly_known == (unlearning_pb2.Recognition() if claimed else little)
