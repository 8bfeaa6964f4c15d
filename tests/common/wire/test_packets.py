"""Fisher packets: intact round trips, and head rows aligned by class name."""

import hashlib
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import CheckpointError, FisherError, LabelError
from disinherit.common.method import MergeRule
from disinherit.common.wire.packets import PackedFisher, decode_fisher, encode_fisher, merge
from disinherit.v1.unlearning_pb2 import FisherPacket

NAMES = ("cat", "dog", "owl", "yak")
BODY = torch.tensor([[1.0, 2.0]], dtype=torch.float64)


def rows(*values: float) -> Tensor:
    return torch.tensor([[value, 10 * value] for value in values], dtype=torch.float64)


def make_packet(
    labels: Sequence[str] = ("cat", "dog"),
    values: Sequence[float] = (1.0, 2.0),
    *,
    root: str = "r",
    classes: Sequence[str] = ("cat",),
    head: tuple[str, str] = ("head.weight", "head.bias"),
    samples: int = 3,
    body: Tensor = BODY,
) -> FisherPacket:
    tensors = {"body": body}
    if head[0]:
        tensors[head[0]] = rows(*values)
    if head[1]:
        tensors[head[1]] = rows(*values)[:, 0].contiguous()
    return encode_fisher(
        tensors,
        labels=labels,
        head_weight=head[0],
        head_bias=head[1],
        sources=[root],
        classes=classes,
        samples=samples,
    )


def by_name(fisher: PackedFisher) -> dict[str, list[float]]:
    """Class name -> its row of the head's weight."""
    weight = fisher.values[fisher.head_weight]
    return dict(zip(fisher.labels, weight.tolist(), strict=True))


def merge_packets(packets: Sequence[FisherPacket], rule: MergeRule) -> FisherPacket:
    """A packet as sent to owners, with its tensors."""
    merged, tensors = merge([PackedFisher.from_packet(packet) for packet in packets], rule)
    merged.tensors = tensors
    return merged


# --- round trips


@given(
    values=st.lists(st.floats(0, 1e30), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    samples=st.integers(1, 10**12),
)
def test_tensors_come_back_bit_for_bit(
    values: list[float], dtype: torch.dtype, samples: int
) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    sent = encode_fisher(
        {"w": tensor},
        labels=["cat"],
        head_weight="",
        head_bias="",
        sources=["r"],
        classes=["cat"],
        samples=samples,
    )
    found = decode_fisher(FisherPacket.FromString(sent.SerializeToString()))
    assert found.keys() == {"w"}
    assert found["w"].dtype == dtype
    assert torch.equal(found["w"], tensor)
    assert sent.samples == samples
    assert sent.digest == hashlib.sha256(sent.tensors).hexdigest()


def test_every_flipped_byte_is_detected() -> None:
    packet = make_packet()
    for place in range(0, len(packet.tensors), 7):
        forged = FisherPacket()
        forged.CopyFrom(packet)
        data = bytearray(packet.tensors)
        data[place] ^= 1
        forged.tensors = bytes(data)
        with pytest.raises(FisherError, match="for the Fisher packet of r, but its bytes have"):
            decode_fisher(forged)


def test_bytes_that_are_no_tensors_are_refused() -> None:
    data = b"not tensors"
    packet = FisherPacket(tensors=data, digest=hashlib.sha256(data).hexdigest())
    with pytest.raises(CheckpointError, match="the Fisher packet of an unknown root"):
        decode_fisher(packet)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_values_that_no_fisher_has_are_refused(value: float) -> None:
    with pytest.raises(FisherError, match="the Fisher packet of r"):
        decode_fisher(make_packet(values=(1.0, value)))


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (("a.weight", "a.bias"), ("a.weight", "a.bias")),
        (("a.weight", ""), ("a.weight",)),
        (("", ""), ()),
    ],
)
def test_head_names_omit_missing_parameters(head: tuple[str, str], names: tuple[str, ...]) -> None:
    assert PackedFisher.from_packet(make_packet(head=head)).head == names


# --- rows by name

label_spaces = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)


@given(source=label_spaces, target=label_spaces)
def test_rows_are_aligned_by_class(source: list[str], target: list[str]) -> None:
    value = {name: float(NAMES.index(name) + 1) for name in NAMES}
    packet = make_packet(source, [value[name] for name in source])
    aligned = PackedFisher.from_packet(packet).aligned(target)
    expected = [value[name] if name in source else 0.0 for name in target]
    assert torch.equal(aligned["head.weight"], rows(*expected))
    assert torch.equal(aligned["head.bias"], rows(*expected)[:, 0])
    assert torch.equal(aligned["body"], BODY)


def test_rows_are_aligned_through_a_mapping() -> None:
    aligned = PackedFisher.from_packet(make_packet()).aligned(["kitten", "dog"], {"cat": "kitten"})
    assert torch.equal(aligned["head.weight"], rows(1.0, 2.0))


def test_a_label_space_that_does_not_fit_the_head_is_refused() -> None:
    packet = make_packet()
    packet.labels.append("owl")
    for labels in (["cat", "dog", "owl"], ["cat"]):
        with pytest.raises(LabelError, match="Expected 3 rows in dimension 0"):
            PackedFisher.from_packet(packet).aligned(labels)


def test_without_a_head_rows_cannot_be_aligned() -> None:
    packet = make_packet(head=("", ""))
    assert torch.equal(PackedFisher.from_packet(packet).aligned(["cat", "dog"])["body"], BODY)
    with pytest.raises(FisherError, match=r"of r names no linear head, but got \['dog', 'cat'\]"):
        PackedFisher.from_packet(packet).aligned(["dog", "cat"])


# --- merging


@pytest.mark.parametrize(("rule", "dog"), [("max", 5.0), ("mean", (2 + 5) / 2), ("sum", 7.0)])
def test_roots_with_different_classes_merge_by_name(rule: MergeRule, dog: float) -> None:
    left = make_packet(("cat", "dog"), (1.0, 2.0), root="a", classes=("cat",), samples=3)
    right = make_packet(("dog", "owl"), (5.0, 4.0), root="b", classes=("owl", "cat"), samples=4)
    merged = merge_packets([left, right], rule)
    halved = 2 if rule == "mean" else 1
    found = {name: row[0] for name, row in by_name(PackedFisher.from_packet(merged)).items()}
    assert found == {"cat": 1.0 / halved, "dog": dog, "owl": 4.0 / halved}
    assert list(merged.sources) == ["a", "b"]
    assert list(merged.classes) == ["cat", "owl"]
    assert merged.samples == 7


def test_one_packet_merges_to_itself() -> None:
    packet = make_packet()
    assert merge_packets([packet], "max") == packet


def test_packets_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(FisherError, match="at least one Fisher packet"):
        merge_packets([], "max")
    other = make_packet(root="s", head=("fc.weight", "fc.bias"))
    message = r"r has \('head.weight', 'head.bias'\) and s has \('fc.weight', 'fc.bias'\)"
    with pytest.raises(FisherError, match=message):
        merge_packets([make_packet(), other], "max")
    wide = make_packet(root="s", body=torch.ones(3, 3, dtype=torch.float64))
    with pytest.raises(FisherError, match="body"):
        merge_packets([make_packet(), wide], "max")


# --- names that change along edges


def test_classes_are_renamed_for_other_models() -> None:
    packet = PackedFisher.from_packet(
        make_packet(("cat", "dog", "owl"), (1.0, 2.0, 3.0), classes=("cat", "owl"))
    )
    renamed = packet.renamed({"cat": "kitten"})
    assert by_name(renamed) == {"kitten": [1.0, 10.0], "dog": [2.0, 20.0], "owl": [3.0, 30.0]}
    assert list(renamed.classes) == ["kitten", "owl"]
    assert packet.renamed({}) is packet


def test_a_left_out_class_gets_no_other_name() -> None:
    packet = PackedFisher.from_packet(
        make_packet(("0", "1", ""), (1.0, 2.0, 3.0), classes=("0", ""))
    )
    renamed = packet.renamed({"0": None, "1": ""})
    assert by_name(renamed) == {"": [2.0, 20.0]}
    assert list(renamed.classes) == []


def test_two_classes_may_swap_names() -> None:
    renamed = PackedFisher.from_packet(make_packet()).renamed({"cat": "dog", "dog": "cat"})
    assert by_name(renamed) == {"dog": [1.0, 10.0], "cat": [2.0, 20.0]}
    assert list(renamed.classes) == ["dog"]


def test_a_class_that_lost_its_name_to_another_is_left_out_everywhere() -> None:
    # "cat" does not reach a model with "cat" for the root's "dog": nothing of it may be forgotten
    # there, and above all not the present "cat".
    packet = PackedFisher.from_packet(make_packet(("cat", "dog"), (1.0, 2.0), classes=("cat",)))
    renamed = packet.renamed({"dog": "cat"})
    assert by_name(renamed) == {"cat": [2.0, 20.0]}
    assert list(renamed.classes) == []
