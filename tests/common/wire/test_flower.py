"""Protobuf messages inside Flower content: round trips, and refusals with the name."""

import hashlib

import pytest
from flwr.app import ConfigRecord, MetricRecord
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import InputError
from disinherit.common.wire.flower import as_array, pack, unpack
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.flower_messages import RecordDict


@given(request_id=st.text(), tensors=st.binary(), ids=st.lists(st.text(), max_size=3))
def test_a_message_survives_a_round_trip(request_id: str, tensors: bytes, ids: list[str]) -> None:
    task = pb.UnlearnTask(
        request_id=request_id,
        fishers=[pb.FisherPacket(tensors=tensors)],
        models=[pb.ModelTask(model_id=model) for model in ids],
    )
    assert unpack(pack(task), pb.UnlearnTask) == task


@given(tensors=st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_tensors_beside_a_message_are_put_into_it(tensors: list[bytes]) -> None:
    digests = {hashlib.sha256(data).hexdigest(): data for data in tensors}
    task = pb.UnlearnTask(fishers=[pb.FisherPacket(digest=digest) for digest in digests])
    arrays = {digest: as_array(data) for digest, data in digests.items()}
    found = unpack(pack(task, arrays), pb.UnlearnTask)
    assert {packet.digest: packet.tensors for packet in found.fishers} == digests


def test_missing_tensors_are_named() -> None:
    task = pb.UnlearnTask(fishers=[pb.FisherPacket(digest="ab" * 32)])
    with pytest.raises(InputError, match="the tensors 'abab"):
        unpack(pack(task), pb.UnlearnTask)


def test_an_empty_message_survives_a_round_trip() -> None:
    assert unpack(pack(pb.Identity()), pb.Identity) == pb.Identity()


def test_the_same_message_has_the_same_content() -> None:
    counts = {f"class {i}": i for i in range(20)}
    forward, backward = pb.RegisterReply(), pb.RegisterReply()
    forward.models.add().provenance.samples_per_class.update(counts)
    backward.models.add().provenance.samples_per_class.update(dict(reversed(counts.items())))
    assert pack(forward) == pack(backward)


def record(**values: str | bytes | int) -> RecordDict:
    return RecordDict({"disinherit": ConfigRecord(dict(values))})


SCHEMA = "disinherit.v1.Identity"


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (pack(pb.RegisterTask(scope="head")), "carries disinherit.v1.Identity, but got "
         "'disinherit.v1.RegisterTask'"),
        (RecordDict(), "carries disinherit.v1.Identity, but got []"),
        (RecordDict({"fit": ConfigRecord({"a": 1})}), "Identity, but got ['fit']"),
        (RecordDict({"disinherit": MetricRecord({"a": 1})}), "Identity, but got ['disinherit']"),
        (record(), "carries disinherit.v1.Identity, but got None"),
        (record(schema=SCHEMA), "the bytes of disinherit.v1.Identity, but got NoneType"),
        (record(schema=SCHEMA, message="text"), "Identity, but got str"),
        (record(schema=SCHEMA, message=b"\x0a\xff"), "well-formed disinherit.v1.Identity, but it"),
    ],
)  # fmt: skip
def test_other_content_is_refused_by_name(content: RecordDict, got: str) -> None:
    with pytest.raises(InputError) as caught:
        unpack(content, pb.Identity)
    assert got in str(caught.value)
