"""Random packets and replies, seeded: each is accepted, or becomes a reason at its own models."""

import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from disinherit.common.audit.dsse import Signer
from disinherit.common.errors import DisinheritError
from disinherit.common.wire.packets import PackedFisher
from disinherit.common.wire.received import received_edges, received_record
from disinherit.server.campaign.fisher_checks import check_scale
from disinherit.server.campaign.outcomes import outcome_of
from disinherit.server.reports.report import report_of
from disinherit.server.reports.statement import attest
from disinherit.server.states import Answered, CampaignState, Task, TaskState
from disinherit.server.transport.answers import root_packets
from disinherit.v1 import graph_pb2
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, copy, lying, make_request

PACKETS, REPLIES, CAMPAIGNS = 500, 700, 16
TEXTS = ("", "x" * 1000, "ab" * 32, "a" * 63, "r1", "r2", "../r3", "no\n\x1b[2J", "\u0663" * 64)
NUMBERS: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), -1, 0, 1, 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), -1, 0, 1, 2**53, 2**60, 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e308),
    FieldDescriptor.CPPTYPE_FLOAT: (float("nan"), float("inf"), -1.0, 0.0),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 5, 6, 7, 99),
}


def value_for(field: FieldDescriptor, chance: random.Random) -> Any:
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return chance.choice(NUMBERS[field.cpp_type])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.choice((0, 7, 8, 200)))
    return chance.choice(TEXTS)


def spoil(message: Message, chance: random.Random) -> None:
    """Change one thing somewhere in a message."""
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    field = chance.choice(fields)
    value = getattr(message, field.name)
    inner = field.message_type is not None
    if inner and field.message_type.GetOptions().map_entry:
        value.clear()
    elif field.is_repeated:
        act = chance.randrange(4)
        if act == 0:
            message.ClearField(field.name)
        elif inner:
            spoil(chance.choice(value) if value and act < 3 else value.add(), chance)
        elif value and act == 1:
            value[chance.randrange(len(value))] = value_for(field, chance)
        else:
            value.extend([value_for(field, chance)] * chance.choice((1, 2, 40)))
    elif inner:
        if chance.random() < 0.2:
            message.ClearField(field.name)
        else:
            spoil(value, chance)
    else:
        setattr(message, field.name, value_for(field, chance))


def spoilt(message: Message, chance: random.Random) -> Any:
    other = type(message)()
    other.CopyFrom(message)
    for _ in range(chance.choice((1, 1, 2, 5))):
        spoil(other, chance)
    return other


@pytest.fixture(scope="module")
def heard(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What honest owners answered."""
    with copy(built, tmp_path_factory.mktemp("heard") / "world") as world:
        world.coordinator.submit(make_request())
        replies: dict[str, Any] = {}

        def listen(ask: Any, honest: Any) -> Any:
            answer = honest()
            replies[ask.action] = answer.reply
            return answer

        world.transport.twists["anna", "query.fisher"] = listen
        world.transport.twists["cleo", "train.unlearn"] = listen
        world.coordinator.run("q")
        replies["r1"] = world.store.records(["r1"])["r1"]
        replies["record"] = replies["train.unlearn"].models[0].successor
        return replies


def test_random_packets_are_accepted_or_refused(heard: dict[str, Any]) -> None:
    root = pb.Root(model_id="r1", classes=["cat"])
    (honest,) = heard["query.fisher"].roots
    taken = longest = 0
    for seed in range(PACKETS):
        fisher = spoilt(honest, random.Random(seed))
        try:
            packets = root_packets(root, heard["r1"], fisher)
            decoded = [PackedFisher.from_packet(packet) for packet in packets]
            check_scale(root, heard["r1"], "head", decoded)
            taken += 1
        except DisinheritError as refused:
            longest = max(longest, len(str(refused)))
    assert 0 < taken < PACKETS
    assert 0 < longest < 3000


def test_random_results_are_accepted_or_become_a_reason(heard: dict[str, Any]) -> None:
    (honest,) = heard["train.unlearn"].models
    sent = pb.UnlearnTask(
        fishers=[pb.FisherPacket(digest="0f" * 32)], request_digest=honest.request_digest
    )
    states = set()
    for seed in range(REPLIES):
        result = spoilt(honest, random.Random(seed))
        found = outcome_of(Task("r3", "cleo"), result, sent, pb.ModelTask(digest="ab"))
        task = found.task if isinstance(found, Answered) else found
        states.add(task.state)
        assert len(task.reason) <= 1100, seed
        assert task.reason.isprintable(), seed
        if task.result is not None:
            assert task.result.ByteSize() <= 2**20
            counts = [row for one in task.result.selections for row in one.rows]
            assert all(0 <= row < 2**53 for row in counts), seed
    assert {TaskState.APPLIED, TaskState.FAILED} <= states


def test_random_records_are_accepted_or_refused(heard: dict[str, Any]) -> None:
    longest = 0
    edge = graph_pb2.Inheritance(
        parent="r1", child="m", kind=graph_pb2.INHERITANCE_KIND_TRANSFER, weight=1
    )
    for seed in range(REPLIES):
        chance = random.Random(seed)
        for receive in (
            lambda chance=chance: received_record(spoilt(heard["record"], chance)),
            lambda chance=chance: received_edges([spoilt(edge, chance)]),
        ):
            try:
                receive()
            except DisinheritError as refused:
                longest = max(longest, len(str(refused)))
    assert 0 < longest < 2000


@pytest.mark.parametrize("seed", range(CAMPAIGNS))
def test_random_answers_of_one_owner_do_not_affect_others(
    seed: int, built: Path, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    with copy(built, tmp_path / "world") as world:
        for action in ("train.unlearn", "evaluate.panel", "query.notice"):
            world.transport.twists["cleo", action] = lying(
                lambda reply: reply.CopyFrom(spoilt(reply, chance))
            )
        world.coordinator.submit(make_request())
        for _ in range(2):
            world.coordinator.run("q")
        states = world.states()
        assert {states[m] for m in AFFECTED if m != "r3"} == {TaskState.VERIFIED}
        campaign = world.store.campaign("q")
        assert campaign.state in (
            CampaignState.RUNNING,
            CampaignState.COMPLETE,
            CampaignState.PARTIAL,
        )
        report = report_of(world.store, "q")
        assert len(report.models) == len(AFFECTED)
        attest(report, Signer(Ed25519PrivateKey.generate()))
        world.transport.twists.clear()
        world.coordinator.run("q")
        assert world.reason("r3").isprintable()
