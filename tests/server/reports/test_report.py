"""Reports and attestations: equal to the stored records, with all open gaps."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from disinherit.common.audit.attestation import DIGEST, read_statement
from disinherit.common.audit.contradictions import find_fault, not_compared
from disinherit.common.audit.dsse import Signer, TrustedKeys
from disinherit.common.audit.export import read_entry
from disinherit.common.audit.gaps import GapKind
from disinherit.common.graph.formats import lineage_digest
from disinherit.server.reports.report import report_of
from disinherit.server.reports.statement import attest
from disinherit.server.states import CampaignEvent
from disinherit.server.store.audit_events import request_digest
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1.unlearning_pb2 import UnlearnReply
from tests.support.campaign import AFFECTED, FORGET, World, broken, gone, make_request
from tests.support.changes import kept_packets
from tests.support.owner import SAMPLES, PointsOwner

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def gaps(world: World) -> dict[GapKind, tuple[str, ...]]:
    return {gap.kind: gap.models for gap in report_of(world.store, "q").gaps}


def attested(world: World) -> Any:
    """The statement about a campaign, which the log does not contradict."""
    envelope = attest(report_of(world.store, "q"), SIGNER)
    entries = [read_entry(line) for line in list(world.store.audit_lines("q"))[1:]]
    assert find_fault(envelope, TrustedKeys.from_pem(SIGNER.public_pem), entries) is None
    statement = read_statement(envelope)
    late = [model for model in statement["predicate"]["models"] if model["late"]]
    joined = ["versions that joined late"] if late else []
    goes_on = [] if world.store.campaign("q").state.ended else ["graph"]
    assert not_compared(statement, entries) == ["software", *goes_on, *joined]
    return statement


def test_a_report_has_the_result_of_every_version(world: World) -> None:
    world.coordinator.submit(make_request(), approval=True)
    world.store.transition("q", CampaignEvent.APPROVE)
    world.coordinator.run("q")
    report, tasks = report_of(world.store, "q"), world.store.tasks("q")
    assert tuple(model.covered.model_id for model in report.models) == AFFECTED
    graph = world.store.graph()
    assert report.graph_digest == lineage_digest(graph, AFFECTED)
    assert report.graph_digest != lineage_digest(graph, AFFECTED[1:])
    for model in report.models:
        assert model.result == tasks[model.covered.model_id].result
        assert model.notified_us > 0
        assert len(model.fishers) == 1
    assert report.fishers == {
        root: tuple(packet.digest for packet in packets)
        for root, packets in kept_packets(world.store, "q").items()
    }
    times = [report.times_us[name] for name in ("received", "approved", "first_sent")]
    times += [report.times_us[name] for name in ("last_applied", "last_verified", "ended")]
    assert times == sorted(times)
    assert set(gaps(world)) == {GapKind.SUPPRESSION, GapKind.OLD_KEPT}


def test_an_attestation_names_both_versions_and_has_no_free_text(world: World) -> None:
    asked = make_request()
    asked.reason = "Jane Roe has moved away"
    world.coordinator.submit(asked)
    world.coordinator.run("q")
    statement = attested(world)
    subjects = {one["name"]: one["digest"][DIGEST] for one in statement["subject"]}
    graph = world.store.graph()
    assert subjects == {
        id: graph.model(id).digest for model in AFFECTED for id in (model, f"{model}~q")
    }
    predicate = statement["predicate"]
    assert "no proof that anything was erased" in predicate["notice"]
    assert predicate["request"]["sha256"] == request_digest(asked)
    assert predicate["request"]["roots"] == list(FORGET)
    assert predicate["coverage"] == {"affected": 5, "by_state": {"verified": 5}, "complete": True}
    assert {"suppression", "old_kept"} == {gap["kind"] for gap in predicate["gaps"]}
    parameters = predicate["models"][0]["parameters"]
    measured = parameters.pop("forget")
    assert (measured["measure"], measured["samples"], measured["source"]) == (
        "accuracy",
        SAMPLES["evaluation"],
        "evaluation",
    )
    assert float(measured["after"]) < float(measured["before"]) == 1
    assert parameters == {
        "inheritance": "1.0",
        "remedy": "suppressed",
        "retain_before": parameters["retain_before"],
        "retain_after": parameters["retain_after"],
    }
    message = json.dumps(statement).lower()
    assert not [word for word in ("jane", '"cat"', '"owl"') if word in message]
    # The same records and the same key: the same bytes.
    again = [attest(report_of(world.store, "q"), SIGNER) for _ in range(2)]
    assert again[0] == again[1]


def test_open_gaps_are_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.coordinator.register(["anna", "ben", "cleo"], "all")
    for kind in ("tuning_data", "evaluation_data", "training_data"):
        monkeypatch.setattr(PointsOwner, kind, lambda self, record: None)
    asked = make_request(scope="all")
    asked.method.ClearField("alpha")
    world.coordinator.submit(asked)
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.transport.twists["ben", "evaluate.panel"] = gone
    world.coordinator.run("q")
    world.store.transition("q", CampaignEvent.ABORT)
    open_ = gaps(world)
    assert open_[GapKind.PENDING] == open_[GapKind.NOT_NOTIFIED] == ("r3",)
    assert open_[GapKind.NOT_VERIFIED] == ("r2", "r6")
    assert open_[GapKind.NOT_MEASURED] == ("r1", "r2", "r4", "r6")
    assert GapKind.SUPPRESSION not in open_
    statement = attested(world)
    assert statement["predicate"]["state"] == "aborted"
    assert not statement["predicate"]["coverage"]["complete"]
    assert "r3~q" not in {one["name"] for one in statement["subject"]}


def test_a_roll_back_is_attested(world: World) -> None:
    world.coordinator.submit(make_request())
    world.coordinator.run("q")
    world.store.roll_back("q", reason="too much was lost")
    world.coordinator.run("q")
    assert gaps(world)[GapKind.ROLLED_BACK] == AFFECTED
    statement = attested(world)
    assert {one["name"] for one in statement["subject"]} == set(AFFECTED)
    assert statement["predicate"]["state"] == "rolled_back"
    assert "too much" not in json.dumps(statement)


def test_an_attestation_agrees_with_the_log_after_failures(world: World) -> None:
    """Owners that fail, come back, hold something else and cannot put back, one after the other."""
    world.coordinator.submit(make_request())
    for twists, event in (
        ({("cleo", "train.unlearn"): gone, ("ben", "train.unlearn"): broken}, None),
        ({("ben", "train.unlearn"): broken, ("anna", "evaluate.panel"): gone}, None),
        ({("anna", "evaluate.panel"): broken}, CampaignEvent.RESUME),
        ({}, CampaignEvent.RESUME),
    ):
        world.transport.twists = dict(twists)
        world.coordinator.run("q")
        attested(world)
        if event is not None and not world.store.campaign("q").state.ended:
            world.store.transition("q", CampaignEvent.PAUSE)
            world.store.transition("q", event)
            attested(world)
    world.coordinator.run("q", resend=True)
    attested(world)
    world.store.roll_back("q", ["r4"])
    world.transport.twists["anna", "train.rollback"] = broken
    world.coordinator.run("q")
    assert attested(world)["predicate"]["state"] != "rolled_back"
    world.transport.twists = {}
    world.store.roll_back("q")
    world.coordinator.run("q")
    assert attested(world)["predicate"]["state"] == "rolled_back"


def test_parameters_missing_at_the_roots_are_reported(world: World) -> None:
    def wider(ask: Ask, go_on: Callable[[], Answer]) -> Answer:
        answer = go_on()
        assert isinstance(answer.reply, UnlearnReply)
        for result in answer.reply.models:
            result.not_covered.extend(["adapter.weight", "adapter.bias"])
        return answer

    world.coordinator.submit(make_request(scope="all"))
    world.transport.twists["cleo", "train.unlearn"] = wider
    world.coordinator.run("q")
    assert gaps(world)[GapKind.NOT_COVERED] == ("r3",)
    (message,) = (m for m in attested(world)["predicate"]["models"] if m["id"] == "r3")
    assert message["parameters"]["not_covered"] == 2


def test_weights_that_another_layer_uses_are_reported(world: World) -> None:
    """It is not only the last layer that was changed then; the sentence that says so stays."""

    def sharing(ask: Ask, go_on: Callable[[], Answer]) -> Answer:
        answer = go_on()
        assert isinstance(answer.reply, UnlearnReply)
        for result in answer.reply.models:
            result.tied.append("words.weight")
        return answer

    world.coordinator.submit(make_request())
    world.transport.twists["cleo", "train.unlearn"] = sharing
    world.coordinator.run("q")
    assert gaps(world)[GapKind.TIED] == ("r3",)
    (message,) = (m for m in attested(world)["predicate"]["models"] if m["id"] == "r3")
    assert message["parameters"]["tied"] == 1


def test_a_measurement_on_few_samples_is_reported(world: World) -> None:
    def few(ask: Ask, go_on: Callable[[], Answer]) -> Answer:
        answer = go_on()
        assert isinstance(answer.reply, UnlearnReply)
        for result in answer.reply.models:
            result.forget.samples, result.forget.margin = 3, 0.26
        return answer

    world.coordinator.submit(make_request())
    world.transport.twists["cleo", "train.unlearn"] = few
    world.coordinator.run("q")
    assert gaps(world)[GapKind.FEW_MEASURED] == ("r3",)
    assert GapKind.NOT_MEASURED not in gaps(world)
