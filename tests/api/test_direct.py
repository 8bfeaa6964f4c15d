"""Owners called directly: the same answers and failures as over a network."""

from functools import partial
from pathlib import Path

import pytest
from google.protobuf.message import Message

from disinherit.common.errors import StoreError
from disinherit.common.method import Method
from disinherit.common.wire.messages import ACTIONS
from disinherit.direct import DirectTransport
from disinherit.server.transport.base import Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import LABELS, PointsOwner


@pytest.fixture
def transport(tmp_path: Path) -> DirectTransport:
    with PointsOwner(tmp_path / "anna", "anna") as anna:
        anna.train("m", LABELS, created_us=1)
    (tmp_path / "ben").write_text("in the way")
    names = ("anna", "ben")
    return DirectTransport({n: partial(PointsOwner, tmp_path / n, n) for n in names})


@pytest.mark.parametrize(
    ("action", "task"),
    [
        ("query.register", pb.RegisterTask(scope="head")),
        ("query.fisher", pb.FisherTask(method=Method().to_proto())),
        ("train.unlearn", pb.UnlearnTask(request_id="r")),
        ("evaluate.panel", pb.EvaluateTask(model_ids=["m"])),
        ("evaluate.preview", pb.UnlearnTask(request_id="r", method=Method().to_proto())),
    ],
)
def test_every_action_is_answered_with_its_message(
    action: str, task: Message, transport: DirectTransport
) -> None:
    (answer,) = transport.ask([Ask("anna", action, task)], timeout=1.0)
    assert not answer.error
    assert isinstance(answer.reply, ACTIONS[action].reply)


def test_each_message_has_one_answer_and_a_failure_is_its_owners_own(
    transport: DirectTransport,
) -> None:
    task = pb.EvaluateTask(model_ids=["m"])
    asks = [Ask(owner, "evaluate.panel", task) for owner in ("ben", "anna", "zoe")]
    ben, anna, zoe = transport.ask(asks, timeout=1.0)
    assert [ben.ask, anna.ask, zoe.ask] == asks
    assert ben.error.startswith("owner ben: Expected a writable folder")
    assert not ben.unreachable
    assert isinstance(anna.reply, pb.EvaluateReply)
    assert len(anna.reply.models[0].confusion) == 16
    assert zoe.error == "owner zoe is not connected"
    assert zoe.unreachable
    assert ben.reply is zoe.reply is None


def test_an_owner_is_closed_after_each_message_even_one_that_fails(tmp_path: Path) -> None:
    opened: list[PointsOwner] = []

    def open_owner() -> PointsOwner:
        opened.append(PointsOwner(tmp_path, "anna"))
        return opened[-1]

    transport = DirectTransport({"anna": open_owner})
    unknown = pb.RegisterTask(scope="head", model_ids=["x"])
    (answer,) = transport.ask([Ask("anna", "query.register", unknown)], timeout=1.0)
    assert "'x'" in answer.error
    with pytest.raises(StoreError):
        opened[0].store.records()
