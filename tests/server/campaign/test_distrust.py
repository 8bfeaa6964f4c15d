"""False or malformed answers: a reason at the owner's models, and no other change."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, text

from disinherit.common.audit.dsse import Signer
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelStatus
from disinherit.common.limits import ANSWER, FISHER
from disinherit.common.text import one_line
from disinherit.common.wire.packets import decode_fisher, encode_fisher
from disinherit.server.campaign import outcomes
from disinherit.server.now import now_us
from disinherit.server.reports.report import report_of
from disinherit.server.reports.statement import attest
from disinherit.server.states import CampaignEvent, CampaignState, Task, TaskState
from disinherit.server.store import graph_store, lineage
from disinherit.server.store.database import Database
from disinherit.server.store.model_rows import insert_edges
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto
from tests.support.campaign import AFFECTED, NAMES, World, build, gone, lying, make_request
from tests.support.owner import LABELS, PointsOwner

VERIFIED = dict.fromkeys(AFFECTED, TaskState.VERIFIED)
Lie = Callable[[Any], None]


@pytest.fixture
def world(world: World) -> World:
    world.coordinator.submit(make_request())
    return world


# --- what became of a model


def successor(**values: Any) -> Lie:
    """Cleo reports another successor of r3 than the one it made."""

    def lie(reply: pb.UnlearnReply) -> None:
        for name, value in values.items():
            field = getattr(reply.models[0].successor, name)
            if isinstance(value, list):
                del field[:]
                field.extend(value)
            else:
                setattr(reply.models[0].successor, name, value)

    return lie


def outcome(number: int, **values: Any) -> Lie:
    def lie(reply: pb.UnlearnReply) -> None:
        reply.models[0].outcome = number  # type: ignore[assignment]
        for name, value in values.items():
            setattr(reply.models[0], name, value)

    return lie


def speaks_for_others(reply: pb.UnlearnReply) -> None:
    reply.models[0].model_id = "r4"


def trained(reply: pb.UnlearnReply) -> None:
    reply.models[0].successor.provenance.dataset = "secrets"


LIES = {
    "another owner": (successor(owner="anna"), "to have its owner 'cleo', but got 'anna'"),
    "another architecture": (successor(architecture="ab"), "to have its architecture"),
    "other labels": (successor(labels=["cat", "dog"]), "to have its labels"),
    "the same label twice": (successor(labels=["cat", "cat"]), "distinct class names"),
    "no digest": (successor(digest=""), "digest of 'r3~q', but got none"),
    "no id": (successor(id=""), "well-formed model id"),
    "an unsafe id": (successor(id="../r3"), "well-formed model id"),
    "itself": (successor(id="r3"), "known, derived from d, r2"),
    "an untouched model": (successor(id="d"), "known, and was trained"),
    "another's model": (successor(id="r4"), "known, derived from r1, r2"),
    "another's successor": (successor(id="r4~q"), "known, derived from r4"),
    "another's successor that is to come": (successor(id="d~q"), "to be 'r3~q'"),
    "another request's successor": (successor(id="r3~other"), "to be 'r3~q'"),
    "a version from before": (successor(created_us=1), "created after"),
    "a version from the future": (successor(created_us=2**62), "not in the future"),
    "a version from before time": (successor(created_us=-5), "created_us"),
    "an unknown status": (successor(status=77), "ModelStatus"),
    "a retired version": (successor(status=3), "which is retired"),
    "a trained version": (trained, "not to be trained"),
    "nothing": (lambda reply: reply.models[0].ClearField("successor"), "Expected"),
    "no outcome": (outcome(pb.OUTCOME_UNSPECIFIED), "its owner reported no outcome"),
    "an unknown outcome": (outcome(99), "its owner reported no outcome"),
    "failure in many lines": (
        outcome(pb.OUTCOME_FAILED, error="no\n room\x1b[2J"),
        "no room [2J",
    ),
    "someone else's model": (speaks_for_others, "its owner did not mention it"),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
def test_a_successor_that_cannot_be_is_refused_and_touches_nobody_else(
    world: World, lie: Lie, reason: str
) -> None:
    world.transport.twists["cleo", "train.unlearn"] = lying(lie)
    result = world.coordinator.run("q")

    assert result.outcome == "partial"
    assert "r3" not in result.changed
    assert world.states() == {**VERIFIED, "r3": TaskState.FAILED}
    assert reason in world.reason("r3")
    assert "\n" not in world.reason("r3")
    graph = world.store.graph()
    assert graph.model("r3").status is ModelStatus.ACTIVE
    assert not [e for e in graph.children("r3") if e.kind is InheritanceKind.UNLEARNED]
    assert [e.parent for e in graph.parents("r4~q")] == ["r4"]
    assert len(graph) == 7 + 4

    # Once it tells the truth, its model is taken up.
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "unchanged"
    assert world.states() == VERIFIED


def unreportable(**values: Any) -> Lie:
    """Cleo reports what could not be written into a report, a log or an attestation."""

    def lie(reply: pb.UnlearnReply) -> None:
        result = reply.models[0]
        for name, value in values.items():
            if isinstance(value, list):
                getattr(result, name).extend(value)
            else:
                setattr(result, name, value)

    return lie


UNREPORTABLE = {
    "a digest of megabytes": (successor(digest="ab" * 1_700_000), "at most 1,048,576 bytes"),
    "rows beyond 2**53": (
        unreportable(selections=[pb.Selection(parameter="2.weight", rows=[2**60])]),
        "from 0 to 2\\*\\*53 - 1",
    ),
    "6 MB of names": (
        unreportable(out_of_scope=["p" * 1000 + str(i) for i in range(6000)]),
        "at most 1,048,576 bytes",
    ),
    "no number": (unreportable(retain_before=float("nan")), "Expected a finite retain_before"),
    "words of its own for what it measured on": (
        lambda reply: setattr(reply.models[0].forget, "source", "Jane Doe, 1971"),
        "on evaluation, tuning or training samples, but got 'Jane Doe, 1971'",
    ),
}


@pytest.mark.parametrize(("lie", "reason"), UNREPORTABLE.values(), ids=UNREPORTABLE.keys())
def test_malformed_result_fails_only_its_own_model(world: World, lie: Lie, reason: str) -> None:
    world.transport.twists["cleo", "train.unlearn"] = lying(lie)
    world.coordinator.run("q")
    assert world.states() == {**VERIFIED, "r3": TaskState.FAILED}
    assert re.search(reason, world.reason("r3"))
    assert len(world.reason("r3")) <= 1000
    assert b"Jane" not in b"".join(world.store.audit_lines("q"))
    attest(report_of(world.store, "q"), Signer(Ed25519PrivateKey.generate()))


def test_an_answer_that_cannot_be_handled_is_a_reason_at_its_own_models(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome_of = outcomes.outcome_of

    def fails(task: Task, *rest: Any, **named: Any) -> Any:
        if task.owner == "ben":
            raise ZeroDivisionError
        return outcome_of(task, *rest, **named)

    monkeypatch.setattr("disinherit.server.campaign.apply.outcome_of", fails)
    world.coordinator.run("q")
    failed = {"r2": TaskState.FAILED, "r6": TaskState.FAILED}
    assert world.states() == {**VERIFIED, **failed}
    assert "cannot handle what owner ben answered (ZeroDivisionError)" in world.reason("r6")
    monkeypatch.undo()
    assert world.coordinator.run("q").outcome == "unchanged"


def test_a_pass_that_fails_does_not_keep_the_deadline_from_ending_the_campaign(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.transition("q", CampaignEvent.RESUME, now_us() - 1)

    def fails(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("disinherit.server.campaign.apply._short_of", fails)
    with pytest.raises(ZeroDivisionError):
        world.coordinator.run("q")
    assert world.store.campaign("q").state is CampaignState.PARTIAL


@pytest.mark.parametrize("values", [{"digest": "ab" * 32}, {"created_us": now_us() + 10**9}])
def test_unverified_result_can_be_corrected(world: World, values: dict[str, Any]) -> None:
    """A report that can be another version's is stored, and is no word that an owner is held to."""
    world.transport.twists["cleo", "train.unlearn"] = lying(successor(**values))
    world.transport.twists["cleo", "evaluate.panel"] = gone
    assert world.coordinator.run("q").outcome == "partial"
    assert world.states()["r3"] is not TaskState.VERIFIED
    world.transport.twists.clear()
    world.coordinator.run("q", resend=True)
    assert world.states() == VERIFIED
    made = world.store.tasks("q")["r3"].successor
    assert made is not None
    record = world.store.graph().model("r3~q")
    assert (record.digest, record.created_us) == (made.digest, made.created_us)
    for name, value in values.items():
        assert getattr(record, name) != value


def test_the_reason_at_a_task_is_one_line_that_is_no_longer_than_reasons_are(world: World) -> None:
    def lie(e: pb.Evaluation) -> None:
        e.digest = "ab" * 10**6

    world.transport.twists["cleo", "evaluate.panel"] = lying(evaluation(lie))
    world.coordinator.run("q")
    assert world.states() == {**VERIFIED, "r3": TaskState.FAILED}
    assert len(world.reason("r3")) <= 1000


def test_two_models_cannot_share_a_successor(world: World) -> None:
    def lie(reply: pb.UnlearnReply) -> None:
        reply.models[1].successor.CopyFrom(reply.models[0].successor)

    world.transport.twists["ben", "train.unlearn"] = lying(lie)
    world.coordinator.run("q")
    assert world.states() == {**VERIFIED, "r6": TaskState.FAILED}
    assert "known, derived from r2" in world.reason("r6")


def test_first_result_for_a_model_counts(world: World) -> None:
    def lie(reply: pb.UnlearnReply) -> None:
        again = reply.models.add()
        again.CopyFrom(reply.models[0])
        again.outcome = pb.OUTCOME_FAILED
        again.error = "or did it?"

    world.transport.twists["cleo", "train.unlearn"] = lying(lie)
    assert world.coordinator.run("q").outcome == "complete"


@pytest.mark.parametrize("action", ["train.unlearn", "query.fisher", "evaluate.panel"])
def test_answer_of_another_kind_is_refused(world: World, action: str) -> None:
    def other(ask: Ask, _: Callable[[], Answer]) -> Answer:
        return Answer(ask, reply=pb.Identity(owner="ben"))

    world.transport.twists["ben", action] = other
    world.coordinator.run("q")
    assert world.states()["r2"] is not TaskState.VERIFIED
    assert world.states()["r1"] is TaskState.VERIFIED
    assert "owner ben did not answer with a disinherit.v1." in world.reason("r2")


def test_an_owner_cannot_change_its_report_later(world: World) -> None:
    world.coordinator.run("q")
    first = world.store.tasks("q")["r3"].result
    graph = world.store.graph()
    world.transport.twists["cleo", "train.unlearn"] = lying(successor(digest="ab" * 32))
    result = world.coordinator.run("q", resend=True)
    assert result.outcome == "partial"
    assert world.states() == {**VERIFIED, "r3": TaskState.FAILED}
    assert "digest of model 'r3~q' to stay" in world.reason("r3")
    assert world.store.tasks("q")["r3"].result == first
    assert world.store.graph() == graph


# --- what is on disk


def evaluation(change: Callable[[pb.Evaluation], None]) -> Lie:
    return lambda reply: change(reply.models[0])


def test_a_digest_that_is_not_on_disk_fails_until_it_is(world: World) -> None:
    def lie(e: pb.Evaluation) -> None:
        e.digest = "ab" * 32

    world.transport.twists["cleo", "evaluate.panel"] = lying(evaluation(lie))
    assert world.coordinator.run("q").outcome == "partial"
    assert world.states() == {**VERIFIED, "r3": TaskState.FAILED}
    assert f"but its owner holds {'ab' * 32}" in world.reason("r3")
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "unchanged"
    assert world.states() == VERIFIED


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda e: e.ClearField("digest"), "sent no digest"),
        (lambda e: e.CopyFrom(pb.Evaluation(model_id="r3~q", error="no\nroom")), "no room"),
        (lambda e: setattr(e, "model_id", "r4~q"), "did not mention it"),
    ],
)
def test_evaluation_without_a_digest_verifies_nothing(
    world: World, lie: Callable[[pb.Evaluation], None], reason: str
) -> None:
    world.transport.twists["cleo", "evaluate.panel"] = lying(evaluation(lie))
    assert world.coordinator.run("q").outcome == "partial"
    assert world.states() == {**VERIFIED, "r3": TaskState.APPLIED}
    assert world.reason("r3").startswith("not verified: ")
    assert reason in world.reason("r3")


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda e: e.confusion.pop(), "but got 15 counts"),
        (lambda e: e.labels.pop(), "of the 4 classes of r3"),
        (lambda e: e.confusion.__setitem__(3, -1), "counts >= 0"),
    ],
)
def test_impossible_counts_are_dropped(
    world: World, lie: Callable[[pb.Evaluation], None], reason: str
) -> None:
    world.transport.twists["cleo", "evaluate.panel"] = lying(evaluation(lie))
    found = world.coordinator.evaluate(["r3"])["r3"]
    assert reason in found.error
    assert not found.confusion


def test_evaluation_of_another_owners_model_is_ignored(world: World) -> None:
    honest = world.coordinator.evaluate(["r4", "r3"])

    def lie(reply: pb.EvaluateReply) -> None:
        reply.models.add(model_id="r4", digest="ab", labels=LABELS, confusion=[9] * 16)

    for name in NAMES:
        world.transport.twists[name, "evaluate.panel"] = lying(lie)
    world.transport.twists["anna", "evaluate.panel"] = lambda _, honest: honest()
    assert world.coordinator.evaluate(["r4", "r3"]) == honest


# --- what roots send


def fisher(change: Callable[[pb.FisherPacket], None]) -> Lie:
    return lambda reply: change(reply.roots[0].packets[0])


def poison(packet: pb.FisherPacket) -> None:
    values = {name: value * torch.nan for name, value in decode_fisher(packet).items()}
    replace_values(packet, values)


def float8(packet: pb.FisherPacket) -> None:
    values = decode_fisher(packet).items()
    replace_values(packet, {name: value.to(torch.float8_e4m3fn) for name, value in values})


def shrink(packet: pb.FisherPacket) -> None:
    replace_values(packet, {"2.weight": torch.zeros(2, 2), "2.bias": torch.zeros(2)})


def replace_values(packet: pb.FisherPacket, values: dict[str, torch.Tensor]) -> None:
    other = encode_fisher(
        values, labels=[], head_weight="", head_bias="", sources=[], classes=[], samples=1
    )
    packet.tensors, packet.digest = other.tensors, other.digest


FISHER_LIES = {
    "another class": (fisher(lambda p: p.classes.__setitem__(0, "yak")), "of owl, but its owner"),
    "no class": (fisher(lambda p: p.ClearField("classes")), "sent that of no class"),
    "one class too many": (fisher(lambda p: p.classes.append("dog")), "that of dog, owl"),
    "no packet": (lambda r: r.roots[0].ClearField("packets"), "sent that of no class"),
    "another source": (fisher(lambda p: p.sources.__setitem__(0, "r1")), "from r2"),
    "other labels": (fisher(lambda p: p.labels.reverse()), "with its classes"),
    "other bytes": (fisher(lambda p: setattr(p, "tensors", b"other")), "digest"),
    "NaN": (fisher(poison), "finite values >= 0"),
    "floats that torch cannot compute in": (
        fisher(float8),
        "Expected float64, float32, float16 or",
    ),
    "other shapes": (fisher(shrink), "of r1, r2 cannot be merged: names or shapes differ"),
    "nothing": (lambda reply: reply.ClearField("roots"), "sent no Fisher information"),
    "another root": (lambda r: setattr(r.roots[0], "model_id", "r1"), "sent no Fisher information"),
}


@pytest.mark.parametrize(("lie", "reason"), FISHER_LIES.values(), ids=FISHER_LIES.keys())
def test_fisher_information_that_was_not_asked_for_is_not_passed_on(
    world: World, lie: Lie, reason: str
) -> None:
    world.transport.twists["ben", "query.fisher"] = lying(lie)
    assert world.coordinator.run("q").outcome == "partial"
    assert world.states() == {
        **dict.fromkeys(AFFECTED, TaskState.FAILED),
        "r1": TaskState.VERIFIED,
    }
    shared = "cannot be merged" in reason
    assert reason in world.reason("r3" if shared else "r2")
    assert shared or reason not in world.reason("r3")
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "complete"


def test_an_owners_roots_are_asked_for_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disinherit.server.campaign.collect.FISHER", replace(FISHER, most=1))
    request = make_request({"d": ("dog",), "r1": ("cat",), "r4": ("dog",)}, "parts")
    world.coordinator.submit(request)
    world.store.transition("q", CampaignEvent.ABORT)
    world.transport.asked.clear()
    assert world.coordinator.run("parts").outcome == "complete"
    asked = [
        [root.model_id for root in ask.task.roots]  # type: ignore[attr-defined]
        for ask in world.transport.asked
        if ask.action == "query.fisher"
    ]
    assert asked == [["d", "r1", "r4"], ["r1", "r4"], ["r4"]]


def test_an_owner_that_says_there_is_more_and_sends_nothing_is_asked_once(world: World) -> None:
    def lie(reply: pb.FisherReply) -> None:
        reply.ClearField("roots")
        reply.more = True

    world.transport.twists["ben", "query.fisher"] = lying(lie)
    assert world.coordinator.run("q").outcome == "partial"
    assert world.transport.actions().count(("ben", "query.fisher")) == 1
    assert "sent no Fisher information" in world.reason("r2")


def test_root_too_large_for_an_answer_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = replace(ANSWER, most=FISHER.most + 100)
    monkeypatch.setattr("disinherit.server.campaign.collect.ANSWER", most)
    assert world.coordinator.run("q").outcome == "failed"
    said = r"of at most 100 bytes, but it has [0-9,]+\. Submit .* narrower scope .*--encoding log8"
    assert re.search(said, world.reason("r1"))


# --- who registers what


def registered(change: Callable[[RecordProto], None]) -> Lie:
    return lambda reply: change(reply.models[0])


REGISTRATIONS = {
    "another's model": (lambda m: setattr(m, "owner", "anna"), "Expected models of 'cleo'"),
    "other weights": (lambda m: setattr(m, "digest", "ab" * 32), "digest of model 'r3' to stay"),
    "another age": (lambda m: setattr(m, "created_us", 7), "created_us of model 'r3' to stay"),
    "a malformed id": (lambda m: setattr(m, "id", "a b"), "well-formed model id"),
    "no status": (lambda m: m.ClearField("status"), "ModelStatus"),
}


@pytest.mark.parametrize(("lie", "reason"), REGISTRATIONS.values(), ids=REGISTRATIONS.keys())
def test_what_an_owner_may_not_register_is_refused(
    world: World, lie: Callable[[RecordProto], None], reason: str
) -> None:
    before = world.knowledge()
    world.transport.twists["cleo", "query.register"] = lying(registered(lie))
    errors = world.coordinator.register(NAMES, "head")
    assert errors.keys() == {"cleo"}
    assert reason in errors["cleo"]
    assert world.knowledge() == before


def test_owners_are_asked_once_to_register_and_errors_are_by_owner(world: World) -> None:
    world.transport.twists["ben", "query.register"] = gone
    errors = world.coordinator.register(["ben", "anna", "ben"], "head")
    assert errors == {"ben": "owner ben is not connected"}
    assert world.transport.actions() == [("ben", "query.register"), ("anna", "query.register")]


def test_one_refused_model_does_not_keep_the_owners_others_out(world: World) -> None:
    def lie(reply: pb.RegisterReply) -> None:
        reply.models[0].digest = "ab" * 32
        reply.models.add().CopyFrom(reply.models[1])
        reply.models[-1].id = "new"

    world.transport.twists["ben", "query.register"] = lying(lie)
    assert world.coordinator.register(["ben"], "head").keys() == {"ben"}
    assert "new" in world.store.graph()


@pytest.mark.parametrize(("most", "transactions"), [(5000, 1), (8, 3)])
def test_an_owners_versions_are_registered_in_one_transaction_unless_very_many(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int, transactions: int
) -> None:
    def many(reply: pb.RegisterReply) -> None:
        for number in range(20):
            reply.models.add().CopyFrom(reply.models[1])
            reply.models[-1].id = f"new{number}"
            reply.models[-1].ClearField("provenance")
        reply.models[-1].digest = "no digest"

    writing = Database.writing
    begun: list[Database] = []

    def counted(database: Database) -> AbstractContextManager[Connection]:
        begun.append(database)
        return writing(database)

    monkeypatch.setattr(graph_store, "_MOST_TOGETHER", most)
    monkeypatch.setattr(Database, "writing", counted)
    world.transport.twists["ben", "query.register"] = lying(many)
    errors = world.coordinator.register(NAMES, "head")
    assert errors.keys() == {"ben"}
    assert "'no digest'" in errors["ben"]
    assert len(begun) == len(NAMES) - 1 + transactions
    assert [f"new{number}" in world.store.graph() for number in range(20)] == [True] * 19 + [False]


def test_a_version_that_cannot_be_stored_leaves_nothing_of_it_and_keeps_no_other_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(reply: pb.RegisterReply) -> None:
        for name in ("damaged", "sound"):
            reply.models.add().CopyFrom(reply.models[1])
            reply.models[-1].id = name

    def fail(db: Connection, edges: list[Inheritance], recorded_by: str) -> None:
        insert_edges(db, edges, recorded_by)
        if db.scalar(text("SELECT count(*) FROM model WHERE id = 'damaged'")) and not failed:
            failed.append(1)
            raise ArithmeticError

    failed: list[int] = []
    monkeypatch.setattr(lineage, "insert_edges", fail)
    world.transport.twists["ben", "query.register"] = lying(two)
    assert "ArithmeticError" in world.coordinator.register(["ben"], "head")["ben"]
    assert "damaged" not in world.store.graph()
    assert "sound" in world.store.graph()


def test_registering_does_not_reactivate_a_superseded_version(world: World) -> None:
    world.coordinator.run("q")

    def lie(reply: pb.RegisterReply) -> None:
        for model in reply.models:
            model.status = "MODEL_STATUS_ACTIVE"  # type: ignore[assignment]

    world.transport.twists["cleo", "query.register"] = lying(lie)
    assert world.coordinator.register(["cleo"], "head") == {}
    assert world.store.graph().model("r3").status is ModelStatus.SUPERSEDED


# --- names of classes


def test_each_group_of_an_owner_gets_its_packet_under_its_own_names(tmp_path: Path) -> None:
    # Both packets have the same tensors, and say something else by them.
    build(tmp_path)
    with World(tmp_path) as world:
        with PointsOwner(tmp_path / "anna", "anna") as anna:
            labels = ("kitten", *LABELS[1:])
            kittens = anna.train("k", labels, 100, [world.weights("r1")], labels)
        edge = Inheritance("r1", "k", InheritanceKind.TRANSFER, labels={"cat": "kitten"})
        world.store.add_model(kittens, [edge])
        assert world.coordinator.register(["anna"], "head") == {}
        request = make_request({"r1": ("cat",)}, row_scoped=True)

        planned = world.coordinator.submit(request)
        message = world.coordinator.prepare(request, planned.groups).messages["anna"]
        told = {task.model_id: message.fishers[task.fisher].classes for task in message.models}
        assert told == {"r1": ["cat"], "r4": ["cat"], "k": ["kitten"]}

        assert world.coordinator.run("q").outcome == "complete"
        result = world.store.tasks("q")["k"].result
        assert result is not None
        rows = {selection.parameter: list(selection.rows) for selection in result.selections}
        assert rows["2.weight"][0] > 0
        assert rows["2.weight"][1:] == [0, 0, 0]


def test_an_owners_words_become_one_short_printable_line() -> None:
    assert one_line("  no\troom\r\nat\x00all \u202e") == "no room at all"
    assert len(one_line("x" * 100_000)) == 1000
