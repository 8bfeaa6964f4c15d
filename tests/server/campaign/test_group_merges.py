"""Merges of groups that share roots: bit for bit as from the start, at lower cost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError
from disinherit.common.method import MergeRule
from disinherit.common.wire.packets import PackedFisher, merge
from disinherit.server.campaign.group_merges import GroupMerges

SPACES = (("a", "b"), ("b", "a"), ("b", "c", "d"))


def fisher(number: int) -> PackedFisher:
    draw = torch.Generator().manual_seed(number)
    labels = SPACES[number % len(SPACES)]
    dtype = torch.float64 if number % 7 == 6 else torch.float32
    # Of many sizes, so that the order of a sum shows.
    scale = 10.0 ** (number % 5)
    values = {
        "body": torch.rand(3, generator=draw).to(dtype) * scale,
        "head.weight": torch.rand(len(labels), 4, generator=draw).to(dtype) * scale,
        "head.bias": torch.rand(len(labels), generator=draw).to(dtype),
    }
    return PackedFisher(
        values, labels, "head.weight", "head.bias", (f"r{number}",), (labels[0],), number, number
    )


FISHERS = [fisher(number) for number in range(12)]


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=9), min_size=1, max_size=14),
    st.sampled_from(["max", "sum", "mean"]),
    st.sampled_from(list(Encoding)),
)
def test_every_group_is_bit_for_bit_what_it_is_alone(
    groups: list[list[int]], rule: MergeRule, encoding: Encoding
) -> None:
    merges = GroupMerges(rule, encoding)
    for group in groups:
        for end in (max(1, len(group) // 2), len(group)):  # beginnings of others, too
            part = group[:end]
            expected = merge([FISHERS[number] for number in part], rule, encoding)
            assert merges.merge(part, FISHERS.__getitem__) == expected


@pytest.mark.parametrize("rule", ["max", "sum"])
def test_merges_of_a_federation_take_linear_time(rule: MergeRule) -> None:
    rounds = 300
    alike = [number for number in range(12) if number % 7 != 6]
    found = {round: FISHERS[alike[round % len(alike)]] for round in range(rounds)}
    merges = GroupMerges(rule)
    for round in range(rounds):
        merges.merge(range(round + 1), found.__getitem__)
        # Two nodes of a round, both of them roots: neither's group begins with the other's.
        merges.merge([*range(round), -1 - round], lambda key: found[abs(key) - (key < 0)])
    assert merges.merged < 5 * rounds


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(FisherError, match="at least one Fisher packet to merge"):
        GroupMerges("max").merge([], FISHERS.__getitem__)
