"""Averages that can be computed again, against Flower's."""

import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import CheckpointError
from disinherit.common.recipes.averages import average


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=5),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
    st.integers(0, 2**31),
)
def test_it_is_that_of_flower_bit_for_bit(counts: list[int], dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = [
        {
            "weight": torch.randn(3, 4, generator=generator).to(dtype),
            "steps": torch.randint(100, (), generator=generator),
        }
        for _ in counts
    ]
    replies = [
        RecordDict({"arrays": ArrayRecord(state), "metrics": MetricRecord({"num-examples": count})})
        for state, count in zip(states, counts, strict=True)
    ]
    expected = aggregate_arrayrecords(replies, "num-examples").to_torch_state_dict()
    total = sum(counts)
    found = average((s, count / total) for s, count in zip(states, counts, strict=True))
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_parents_that_do_not_fit_are_refused() -> None:
    one = {"w": torch.zeros(2)}
    for other in ({"v": torch.zeros(2)}, {"w": torch.zeros(3)}, {"w": torch.zeros(2).double()}):
        with pytest.raises(CheckpointError, match=r"Expected parents of an average"):
            average([(one, 0.5), (other, 0.5)])
    with pytest.raises(CheckpointError, match="at least one parent"):
        average([])
