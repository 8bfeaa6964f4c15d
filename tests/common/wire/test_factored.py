"""Factored Fisher packets: what they stand for, merges, and sizes that are refused."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError
from disinherit.common.fisher.factors import product_of, sums_of
from disinherit.common.fiun.merging import merge_fishers
from disinherit.common.graph.records import FisherScale, ModelRecord
from disinherit.common.method import MergeRule
from disinherit.common.tensors.checkpoints import tensor_bytes, tensors_from_bytes
from disinherit.common.wire.factored import Factors
from disinherit.common.wire.packets import PackedFisher, encode_fisher, merge
from disinherit.server.campaign.fisher_checks import check_scale
from disinherit.server.campaign.group_merges import GroupMerges
from disinherit.v1 import unlearning_pb2 as pb

LABELS = ("cat", "dog")


def values_of(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"body": (9, 5, 3, 3), "bias": (9,), "head.weight": (2, 7), "head.bias": (2,)}
    return {name: torch.rand(shape, generator=draw) for name, shape in shapes.items()}


def packet_of(
    values: Mapping[str, Tensor],
    encoding: Encoding = Encoding.FACTORED,
    source: str = "r",
    classes: tuple[str, ...] = ("cat",),
) -> pb.FisherPacket:
    return encode_fisher(
        values,
        labels=LABELS,
        head_weight="head.weight",
        head_bias="head.bias",
        sources=[source],
        classes=classes,
        samples=10,
        encoding=encoding,
    )


def rewritten(packet: pb.FisherPacket, **changes: Tensor | None) -> pb.FisherPacket:
    stored = tensors_from_bytes(packet.tensors, "it")
    for name, value in changes.items():
        stored.pop(name.replace("__", "."), None)
        if value is not None:
            stored[name.replace("__", ".")] = value
    packet.tensors = tensor_bytes(stored)
    packet.digest = hashlib.sha256(packet.tensors).hexdigest()
    return packet


def product(value: Tensor) -> Tensor:
    return product_of(*sums_of(value))


def test_a_packet_has_sums_of_matrices_and_the_head_as_it_is() -> None:
    values = values_of(0)
    packet = packet_of(values)
    assert len(packet.tensors) < len(packet_of(values, Encoding.FULL).tensors) / 2
    found = PackedFisher.from_packet(packet)
    assert list(found.factors) == ["body"]
    assert found.shapes == {name: tuple(value.shape) for name, value in values.items()}
    for name, value in values.items():
        expected = product(value) if name == "body" else value
        torch.testing.assert_close(found.values[name], expected)
        assert found.total(name) == pytest.approx(float(value.sum()))
    again = PackedFisher.from_packet(packet_of(found.values))
    torch.testing.assert_close(again.values["body"], found.values["body"])
    other = found.aligned(("dog", "owl"))
    assert torch.equal(other["head.bias"], torch.stack([values["head.bias"][1], torch.zeros(())]))
    torch.testing.assert_close(other["body"], found.values["body"])


@pytest.mark.parametrize("rule", ["max", "mean", "sum"])
def test_a_merge_is_that_of_what_the_packets_stand_for(rule: MergeRule) -> None:
    parts = [
        PackedFisher.from_packet(packet_of(values_of(seed), source=f"r{seed}")) for seed in range(3)
    ]
    packet, data = merge(parts, rule)
    assert packet.encoding == Encoding.FACTORED.to_proto()
    packet.tensors = data
    found = PackedFisher.from_packet(packet)
    expected = merge_fishers([dict(one.values) for one in parts], rule)
    for name, value in expected.items():
        if rule != "max" and name == "body":  # the sums are those of the merged matrix
            torch.testing.assert_close(found.values[name], product(value))
        else:
            torch.testing.assert_close(found.values[name], value)
    merges = GroupMerges(rule)
    for end in (1, 2, 3):
        assert merges.merge(range(end), parts.__getitem__) == merge(parts[:end], rule)


def test_many_are_merged_into_values_where_their_sums_are_longer() -> None:
    parts = [
        PackedFisher.from_packet(packet_of(values_of(seed), source=f"r{seed}")) for seed in range(9)
    ]
    packet, data = merge(parts, "max")
    packet.tensors = data
    found = PackedFisher.from_packet(packet)
    assert not found.factors
    expected = merge_fishers([dict(one.values) for one in parts])
    assert all(torch.equal(found.values[name], value) for name, value in expected.items())


def test_a_factored_and_a_full_one_are_merged_into_values() -> None:
    full = PackedFisher.from_packet(packet_of(values_of(0), Encoding.FULL))
    short = PackedFisher.from_packet(packet_of(values_of(1), source="s"))
    packet, data = merge([full, short], "max")
    packet.tensors = data
    body = PackedFisher.from_packet(packet).values["body"]
    assert torch.equal(body, torch.maximum(full.values["body"], short.values["body"]))
    wide = replace(short, factors={"body": Factors(torch.ones(1, 10**6), torch.ones(1, 10**6))})
    with pytest.raises(FisherError, match="same parameters and shapes"):
        merge([full, wide], "max")  # nothing of 10^12 values is made


@pytest.mark.parametrize(
    "changes",
    [
        {"rows__body": None},
        {"columns__body": torch.ones(1, 4)},  # another sum
        {"columns__body": torch.ones(2, 5, 3, 3)},  # K differs
        {"rows__body": torch.ones(9)},
        {"rows__body": torch.ones(1, 9, dtype=torch.float16)},
        {"rows__body": -torch.ones(1, 9)},
        {"rows__body": torch.full((1, 9), torch.inf)},
        {"values__body": torch.ones(9, 5, 3, 3)},
        {"rows__head.bias": torch.ones(1, 2), "columns__head.bias": torch.ones(1, 2)},
        {"odd": torch.ones(2)},
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Tensor | None]) -> None:
    packet = rewritten(packet_of(values_of(0)), **changes)
    with pytest.raises(FisherError, match=r"the Fisher packet of r"):
        PackedFisher.from_packet(packet)


def test_the_coordinator_refuses_more_values_than_a_model_has() -> None:
    sizes = sum(value.numel() for value in values_of(0).values())
    scale = FisherScale("all", (1e9, 1e9), 16, sizes)
    record = ModelRecord("r", "anna", "a", LABELS, "1" * 64, 1, fisher_scale=scale)
    root = pb.Root(model_id="r", classes=["cat"])
    sound = PackedFisher.from_packet(packet_of(values_of(0)))
    check_scale(root, record, "all", [sound])
    large = rewritten(
        packet_of(values_of(0)),
        rows__body=torch.ones(1, 10**6),
        columns__body=torch.ones(1, 10**6),
    )
    with pytest.raises(FisherError, match=r"stands for 1,000,000,000,025"):
        check_scale(root, record, "all", [PackedFisher.from_packet(large)])
    several = replace(sound, factors={"body": sound.factors["body"].joined(sound.factors["body"])})
    with pytest.raises(FisherError, match="factors of several"):
        check_scale(root, record, "all", [several])
