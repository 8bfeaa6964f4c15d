"""Size limits of answers with Fisher information, from registered sizes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.encodings import Encoding
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.json_text import from_json, to_json
from disinherit.common.graph.records import FisherScale, ModelRecord
from disinherit.common.limits import ANSWER, FISHER, PACKET
from disinherit.common.wire.packets import encode_fisher
from disinherit.server.transport.base import Ask
from disinherit.server.transport.sizes import fisher_bytes, most_bytes
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import World, build, make_request

CLASSES = ("cat", "dog", "owl" * 80)


def record(head_values: int = 0, values: int = 0) -> ModelRecord:
    scale = FisherScale("head", (1.0, 2.0, 3.0), head_values, values)
    return ModelRecord("r", "anna", "", CLASSES, "ab", 1, fisher_scale=scale)


def asked(*classes: str) -> pb.Root:
    return pb.Root(model_id="r", classes=classes)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from(Encoding),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_honest_answers_fit(
    shapes: list[list[int]], encoding: Encoding, dtype: torch.dtype
) -> None:
    values = {f"{i}": torch.rand(shape, dtype=dtype) for i, shape in enumerate(shapes)}
    count = sum(value.numel() for value in values.values())
    packets = [
        encode_fisher(
            values,
            labels=CLASSES,
            head_weight="0",
            head_bias="",
            sources=["r"],
            classes=[name],
            samples=9,
            encoding=encoding,
        )
        for name in CLASSES[:2]
    ]
    reply = pb.FisherReply(roots=[pb.RootFisher(model_id="r", packets=packets)])
    most = fisher_bytes([(asked(*CLASSES[:2]), record(values=count or 1))], "all")
    assert reply.ByteSize() <= most < 3 * PACKET.most


def test_the_limit_depends_on_scope_and_classes() -> None:
    known = record(head_values=1000, values=10**6)
    head = fisher_bytes([(asked("cat"), known)], "head")
    assert PACKET.most < head < PACKET.most + 20_000
    assert fisher_bytes([(asked("cat", "dog"), known)], "head") == 2 * head
    for scope in ("all", "body.*"):
        assert 9 * 10**6 < fisher_bytes([(asked("cat"), known)], scope) < 11 * 10**6
    assert fisher_bytes([(pb.Root(model_id="r"), known)], "head") == head
    many = fisher_bytes([(asked("cat"), known)] * 50, "all")
    assert FISHER.most < many < FISHER.most + 11 * 10**6


@pytest.mark.parametrize("scope", ["head", "all"])
def test_whatever_number_an_owner_registers_its_answer_has_one_limit(scope: str) -> None:
    """Nothing contradicts it: docs/limits.md says so."""
    made_up = record(head_values=2**62, values=2**62)
    for count in (1, 50):
        asks = [(asked(*CLASSES), made_up)] * count
        assert fisher_bytes(asks, scope) == ANSWER.most == 2**30
    page = (Path(__file__).parents[3] / "docs" / "limits.md").read_text()
    assert "An owner that registers more values than its model has may answer with 1 GiB" in page


@pytest.mark.parametrize("old", [record(), replace(record(), fisher_scale=None)])
def test_a_registration_without_a_size_has_the_old_limit(old: ModelRecord) -> None:
    assert fisher_bytes([(asked("cat"), old)], "head") == ANSWER.most
    known = record(head_values=1000, values=10**6)
    assert fisher_bytes([(asked("cat"), known), (asked("cat"), old)], "head") == ANSWER.most


@pytest.mark.parametrize(
    ("action", "task"),
    [
        ("train.unlearn", pb.UnlearnTask(models=[pb.ModelTask(model_id="r")])),
        ("train.rollback", pb.RollBackTask(models=[pb.ModelRollBack(model_id="r")])),
        ("train.destroy", pb.DestroyTask(models=[pb.ModelDestruction(model_id="r")])),
        ("evaluate.panel", pb.EvaluateTask(model_ids=["r"], digests_only=True)),
        ("query.notice", pb.NoticeTask()),
        ("query.identify", pb.Identity()),
    ],
)
def test_answers_about_single_versions_have_their_own_limit(action: str, task: Message) -> None:
    assert 0 < most_bytes(Ask("anna", action, task)) < 5 * PACKET.most
    assert most_bytes(Ask("anna", action, task, most_bytes=7)) == 7


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    build(tmp_path)
    with World(tmp_path) as world:
        world.coordinator.submit(make_request())
        yield world


def test_registered_sizes_limit_the_coordinators_asks(world: World) -> None:
    for model in world.store.graph().models():
        if model.fisher_scale is not None:
            assert 0 < model.fisher_scale.head_values <= model.fisher_scale.values
    assert world.coordinator.run("q").outcome == "complete"
    asks = [ask for ask in world.transport.asked if ask.action == "query.fisher"]
    assert len(asks) == 2
    assert all(ask.most_bytes < 2 * PACKET.most for ask in asks)


def test_sizes_are_stored_in_files() -> None:
    graph = InheritanceGraph([record(5, 9)])
    assert from_json(to_json(graph)) == graph
