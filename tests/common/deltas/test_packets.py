"""Packets with a change: round trips, rows by class name, and hostile ones are refused."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.deltas.changes import add
from disinherit.common.deltas.packets import PackedDelta, encode_delta, relabelled
from disinherit.common.errors import CheckpointError, DisinheritError, FisherError, LabelError
from disinherit.common.tensors.checkpoints import tensor_bytes
from disinherit.common.wire.packets import (
    PackedFisher,
    attach_tensors,
    decode_fisher,
    encode_fisher,
    merge,
)
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.delta_cases import BEFORE, LABELS, make_delta, values_of

ENCODINGS = [
    pb.DELTA_ENCODING_UNSPECIFIED,
    pb.DELTA_ENCODING_BFLOAT16,
    pb.DELTA_ENCODING_INT8,
]


def with_tensors(packet: pb.FisherPacket, tensors: dict[str, Tensor]) -> pb.FisherPacket:
    """A packet as a hostile owner would send it: other tensors, with their digest."""
    packet.tensors = tensor_bytes(tensors)
    packet.digest = hashlib.sha256(packet.tensors).hexdigest()
    return packet


# --- round trips


@given(
    values=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    samples=st.integers(0, 10**12),
)
def test_a_full_change_comes_back_bit_for_bit(
    values: list[float], dtype: torch.dtype, samples: int
) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    packet = encode_delta(
        {"w": tensor},
        labels=LABELS,
        head_weight="",
        head_bias="",
        further_heads=[],
        source="r",
        samples=samples,
        delta=pb.Delta(),
    )
    found = PackedDelta.from_packet(pb.FisherPacket.FromString(packet.SerializeToString()))
    assert found.values["w"].dtype == dtype
    assert torch.equal(found.values["w"], tensor)
    assert found.samples == samples


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rank", [0, 3])
def test_a_packet_says_where_its_change_comes_from(encoding: Any, rank: int) -> None:
    packet = make_delta(encoding=encoding, rank=rank, exact=True)
    found = PackedDelta.from_packet(packet)
    assert (found.source, found.labels, found.samples) == ("r", LABELS, 7)
    assert (found.head_weight, found.head_bias) == ("head.weight", "head.bias")
    assert found.further_heads == ("aux.weight",)
    assert found.head == ("head.weight", "head.bias", "aux.weight")
    assert (found.before, found.after) == (BEFORE, packet.delta.after)
    assert found.request_digest == packet.delta.request_digest
    assert (found.root_method, found.exact) == ("replay", True)
    assert found.values.keys() == values_of().keys()
    for name, value in values_of().items():
        rough = 3.0 if rank and value.dim() > 1 else 0.01
        torch.testing.assert_close(found.values[name], value, rtol=0, atol=rough)


def test_a_change_of_nothing_is_a_packet() -> None:
    assert PackedDelta.from_packet(make_delta({})).values == {}


# --- rows by name

label_spaces = st.lists(st.sampled_from((*LABELS, "yak")), min_size=1, max_size=4, unique=True)


@given(source=label_spaces, target=label_spaces)
def test_rows_are_aligned_by_class(source: list[str], target: list[str]) -> None:
    number = {name: place + 1.0 for place, name in enumerate((*LABELS, "yak"))}
    head = torch.tensor([[number[name], -number[name]] for name in source])
    packet = make_delta({"head.weight": head, "body": -torch.ones(2)}, labels=source)
    found = PackedDelta.from_packet(packet).aligned(target)
    rows = [number[name] if name in source else 0.0 for name in target]
    assert torch.equal(found["head.weight"], torch.tensor([[row, -row] for row in rows]))
    assert torch.equal(found["body"], -torch.ones(2))


def test_rows_are_relabelled_without_new_tensors() -> None:
    packet = make_delta()
    renamed = relabelled(packet, {"cat": "kitten", "owl": None})
    assert list(renamed.labels) == ["kitten", "dog", ""]
    assert list(packet.labels) == list(LABELS)
    assert (renamed.tensors, renamed.digest) == (packet.tensors, packet.digest)
    rows = values_of()["head.weight"]
    found = PackedDelta.from_packet(renamed).aligned(["dog", "owl", "kitten", ""])
    zero = torch.zeros_like(rows[0])
    assert torch.equal(found["head.weight"], torch.stack([rows[1], zero, rows[0], zero]))
    assert torch.equal(found["head.bias"][[1, 3]], torch.zeros(2))


def test_a_class_that_lost_its_name_has_no_counterpart() -> None:
    renamed = relabelled(make_delta(), {"dog": "cat"})
    assert list(renamed.labels) == ["", "cat", "owl"]
    swapped = relabelled(make_delta(), {"dog": "cat", "cat": "dog"})
    assert list(swapped.labels) == ["dog", "cat", "owl"]
    none = relabelled(make_delta(), dict.fromkeys(LABELS))
    assert not PackedDelta.from_packet(none).aligned(LABELS)["head.weight"].any()


def test_a_class_without_a_name_cannot_be_sent() -> None:
    with pytest.raises(LabelError, match="name for each class of root 'r', but got"):
        make_delta(labels=["cat", "", "owl"])


def test_without_a_head_rows_cannot_be_aligned() -> None:
    found = PackedDelta.from_packet(make_delta({"body": torch.ones(2)}, head=("", "", ())))
    assert found.aligned(LABELS).keys() == {"body"}
    with pytest.raises(FisherError, match="root 'r' names no linear head"):
        found.aligned(["dog", "cat", "owl"])


def test_a_change_is_added_across_label_spaces() -> None:
    weights = {"head.weight": torch.zeros(2, 5), "head.bias": torch.zeros(2)}
    packet = make_delta({n: v for n, v in values_of().items() if n in weights})
    change = PackedDelta.from_packet(packet).aligned(["owl", "yak"])
    add(weights, [(change, 2.0)])
    assert torch.equal(weights["head.weight"][0], 2 * values_of()["head.weight"][2])
    assert not weights["head.weight"][1].any()


# --- hostile packets


def edited(**fields: Any) -> pb.FisherPacket:
    packet = make_delta()
    for name, value in fields.items():
        setattr(packet.delta if name in pb.Delta.DESCRIPTOR.fields_by_name else packet, name, value)
    return packet


def listed(name: str, values: list[str]) -> pb.FisherPacket:
    packet = make_delta()
    getattr(packet, name)[:] = values
    return packet


def stored(tensors: dict[str, Tensor], **delta: Any) -> pb.FisherPacket:
    return with_tensors(make_delta(**delta), tensors)


HUGE = 2**14
BOMB = {"left.w": torch.ones(HUGE, 1), "right.w": torch.ones(1, 2 * HUGE)}
NOTHING = {"left.w": torch.ones(HUGE, 0), "right.w": torch.ones(0, HUGE)}
OVER = torch.tensor([[3e38]])
HOSTILE: dict[str, tuple[Callable[[], pb.FisherPacket], str]] = {
    "wrong digest": (lambda: edited(digest="0" * 64), "Expected digest '000.* for the change of"),
    "long digest": (lambda: edited(digest="0" * 10**6), "Expected digest '000"),
    "no digest": (lambda: edited(digest=""), "Expected digest ''"),
    "NaN": (lambda: stored({"body": torch.tensor([math.nan])}), "finite values for 'body'"),
    "infinity": (lambda: stored({"body": torch.tensor([-math.inf])}), "finite values for 'body'"),
    "infinite product": (
        lambda: stored(
            {"left.w": OVER.expand(9, 1).clone(), "right.w": OVER.expand(1, 9).clone()}, rank=1
        ),
        "finite values for 'w'",
    ),
    "newer encoding": (lambda: stored({}, encoding=99), "number 99"),
    "other encoding": (
        lambda: stored({"body": torch.ones(2)}, encoding=pb.DELTA_ENCODING_BFLOAT16),
        "Expected bfloat16 for 'body'",
    ),
    "Fisher codes": (
        lambda: stored(
            {"codes.w": torch.ones(2, dtype=torch.uint8), "scales.w": torch.ones(1, 2)},
            encoding=pb.DELTA_ENCODING_INT8,
        ),
        "codes in int8",
    ),
    "integers": (lambda: stored({"body": torch.ones(2, dtype=torch.int64)}), "torch.int64"),
    "complex": (lambda: stored({"body": torch.ones(2, dtype=torch.complex64)}), "complex64"),
    "factors that do not fit": (
        lambda: stored({"left.w": torch.ones(4, 2), "right.w": torch.ones(3, 4)}, rank=3),
        r"k from 1 to 3 for 'w' .* \[4, 2\] and \[3, 4\]",
    ),
    "factors above the rank": (
        lambda: stored({"left.w": torch.ones(9, 2), "right.w": torch.ones(2, 9)}, rank=1),
        "k from 1 to 1",
    ),
    "a rank above all": (lambda: edited(rank=1025), "rank from 0 to 1024 .* 1025"),
    "factor bomb": (lambda: stored(BOMB, rank=1), "at most 268,435,456 values, .* 536,870,912"),
    "factors of nothing": (lambda: stored(NOTHING, rank=1), r"\[16384, 0\] and \[0, 16384\]"),
    "two roots": (lambda: listed("sources", ["r", "s"]), "one root, but got .* that of 2"),
    "no root": (lambda: listed("sources", []), "one root, but got .* that of 0"),
    "long root": (lambda: listed("sources", ["r" * 10**6]), "to have at most 128 characters"),
    "repeated class": (lambda: listed("labels", ["cat", "dog", "cat"]), "distinct class names"),
    "fewer classes": (lambda: listed("labels", ["cat"]), "row for each of the 1 classes"),
    "long class": (lambda: listed("labels", ["c" * 300, "d", "e"]), "at most 256 characters"),
    "many classes": (lambda: listed("labels", [str(n) for n in range(100_001)]), "100,000 names"),
    "long head": (lambda: edited(head_weight="h" * 300), "at most 256 characters"),
    "long name": (lambda: stored({"b" * 300: torch.ones(2)}), "at most 256 characters"),
    "many tensors": (
        lambda: stored({str(n): torch.ones(1) for n in range(10_001)}),
        "at most 10,000 items",
    ),
    "long method": (lambda: edited(root_method="m" * 10**6), "at most 256 characters"),
    "digest of weights": (lambda: edited(before="x"), "weights before .* 64 lower-case"),
    "digest after": (lambda: edited(after="A" * 64), "weights after .* 64 lower-case"),
    "digest of request": (lambda: edited(request_digest="0" * 10**6), "request .* 64 lower-case"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_packets_are_refused_in_one_short_line(kind: str) -> None:
    make, named = HOSTILE[kind]
    with pytest.raises((FisherError, LabelError), match=named) as refused:
        PackedDelta.from_packet(make())
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 900


def test_bytes_that_are_no_tensors_are_refused() -> None:
    packet = make_delta()
    packet.tensors = b"not tensors"
    packet.digest = hashlib.sha256(packet.tensors).hexdigest()
    with pytest.raises(CheckpointError, match="the change of root 'r'"):
        PackedDelta.from_packet(packet)


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255), redigest=st.booleans())
def test_damage_is_refused_or_decodes_into_finite_values(
    place: int, flip: int, redigest: bool
) -> None:
    packet = make_delta(encoding=pb.DELTA_ENCODING_INT8, rank=1)
    data = bytearray(packet.tensors)
    data[place % len(data)] ^= flip
    packet.tensors = bytes(data)
    if redigest:
        packet.digest = hashlib.sha256(packet.tensors).hexdigest()
    try:
        found = PackedDelta.from_packet(packet)
    except DisinheritError:
        return
    assert redigest
    assert all(value.isfinite().all() for value in found.values.values())


def test_a_bound_on_values_is_checked_before_any_is_decoded() -> None:
    packet = make_delta({"w": torch.ones(40, 50)}, rank=1)
    assert len(packet.tensors) < 600
    assert PackedDelta.from_packet(packet, most_values=2000).values["w"].numel() == 2000
    with pytest.raises(FisherError, match="at most 1,999 values, .* decodes into 2,000"):
        PackedDelta.from_packet(packet, most_values=1999)


def test_a_bomb_is_refused_without_its_product() -> None:
    # 4 TiB would be the product.
    factors = {"left.w": torch.ones(2**20, 1), "right.w": torch.ones(1, 2**20)}
    with pytest.raises(FisherError, match="1,099,511,627,776"):
        PackedDelta.from_packet(stored(factors, rank=1))


def test_only_named_changes_are_decoded_and_bounded() -> None:
    factors = {"left.w": torch.ones(2**20, 1), "right.w": torch.ones(1, 2**20)}
    packet = stored(factors | {"whole.b": torch.ones(2)}, rank=1)
    found = PackedDelta.from_packet(
        packet, names={"b", "c"}, most_values=2, weights={"b": torch.zeros(2)}
    )
    assert torch.equal(found.values["b"], torch.ones(2))
    assert (list(found.values), found.left_out) == (["b"], ("w",))


def test_weights_say_which_names_and_shapes_fit() -> None:
    weights = {name: torch.zeros_like(value) for name, value in values_of().items()}
    assert PackedDelta.from_packet(make_delta(), weights=weights).source == "r"
    weights["head.weight"] = torch.zeros(99, 5)  # rows are aligned by class name later
    assert PackedDelta.from_packet(make_delta(), weights=weights).source == "r"
    for name, other in (("body.weight", (9, 9)), ("head.weight", (3, 6)), ("head.bias", (3, 1))):
        shaped = weights | {name: torch.zeros(other)}
        with pytest.raises(FisherError, match=f"fit the model, but '{name}' has shape"):
            PackedDelta.from_packet(make_delta(), weights=shaped)
    del weights["norm.running_var"]
    with pytest.raises(FisherError, match="'norm.running_var' has shape .* there and none here"):
        PackedDelta.from_packet(make_delta(), weights=weights)


# --- Fishers and changes are never taken for each other


def test_a_change_is_no_fisher_and_says_so() -> None:
    positive = make_delta({"w": torch.ones(2)})
    for read in (decode_fisher, PackedFisher.from_packet):
        with pytest.raises(FisherError, match="Expected Fisher information, but .* of r has the"):
            read(positive)


def test_a_fisher_is_no_change_and_says_so() -> None:
    fisher = encode_fisher(
        {"w": torch.ones(2)},
        labels=LABELS,
        head_weight="",
        head_bias="",
        sources=["r"],
        classes=[],
        samples=3,
    )
    with pytest.raises(FisherError, match="change of a root, but .* is Fisher information"):
        PackedDelta.from_packet(fisher)
    merged, _ = merge([PackedFisher.from_packet(fisher)], "max")
    assert not merged.HasField("delta")


def test_one_file_of_tensors_serves_all_renamings() -> None:
    packet = make_delta()
    data = packet.tensors
    described = pb.FisherPacket()
    described.CopyFrom(packet)
    described.ClearField("tensors")
    task = pb.UnlearnTask(fishers=[described, relabelled(described, {"cat": "kitten"})])
    asked: list[str] = []

    def find(digest: str) -> bytes:
        asked.append(digest)
        return data

    attach_tensors(task, find)
    assert set(asked) == {packet.digest}
    first, second = (PackedDelta.from_packet(one) for one in task.fishers)
    assert (first.labels[0], second.labels[0]) == ("cat", "kitten")
    for name, value in first.values.items():
        assert torch.equal(second.values[name], value)
