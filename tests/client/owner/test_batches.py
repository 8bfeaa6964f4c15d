"""Batches that shrink when memory runs out, and still yield every sample once."""

import logging
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.client.owner.batches import ShrinkingBatches
from disinherit.common.errors import DataError

Batches = Iterable[tuple[Tensor, Tensor]]


def make_batches(sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    numbers = torch.arange(sum(sizes))
    return list(zip(numbers.double().split(sizes), numbers.split(sizes), strict=True))


class Device:
    """Computes on at most `room` samples at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.passes = 0

    def __call__(self, batches: Iterable[tuple[tuple[Tensor, ...], Tensor]]) -> list[int]:
        self.passes += 1
        seen: list[int] = []
        for (inputs,), targets in batches:
            if len(inputs) > self.room:
                raise torch.OutOfMemoryError("full")
            assert inputs.tolist() == targets.tolist()
            seen += targets.tolist()
        return seen


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5), room=st.integers(1, 50))
def test_every_sample_is_yielded_once_in_order(sizes: list[int], room: int) -> None:
    assert ShrinkingBatches(make_batches(sizes)).run(Device(room)) == list(range(sum(sizes)))


def test_fitting_batches_are_not_halved() -> None:
    batches = make_batches([5, 3])
    for (x, _), ((y,), _) in zip(batches, ShrinkingBatches(batches), strict=True):
        assert x is y
    device = Device(5)
    ShrinkingBatches(batches).run(device)
    assert device.passes == 1


def test_a_found_limit_is_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    batches = ShrinkingBatches(make_batches([16, 10]))
    device = Device(4)
    with caplog.at_level(logging.WARNING):
        assert batches.run(device) == list(range(26))
    assert device.passes == 3  # 16, 8, 4
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory with 16 samples at once, trying again with 8: full",
        "Out of memory with 8 samples at once, trying again with 4: full",
    ]
    assert batches.run(device) == list(range(26))
    assert device.passes == 4


def test_one_sample_that_does_not_fit_raises_the_devices_error() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        ShrinkingBatches(make_batches([4])).run(Device(0))


def test_other_errors_pass() -> None:
    def fail(batches: object) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        ShrinkingBatches(make_batches([4])).run(fail)


def test_batches_that_iterate_once_are_refused() -> None:
    with pytest.raises(DataError, match="iterated again, such as a list or a DataLoader, but got"):
        ShrinkingBatches(iter(make_batches([4])))
