"""Devices by name, and refusals."""

import sys
from types import ModuleType

import pytest
import torch

from disinherit.common import tensors
from disinherit.common.errors import InputError
from disinherit.common.models import devices
from disinherit.common.models.devices import (
    exact_convolutions,
    has_triton,
    memory_left,
    pick_device,
    runs_out_of_memory,
)


def test_the_cpu_is_always_available() -> None:
    assert pick_device("cpu") == torch.device("cpu")


def test_auto_is_the_accelerator_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    assert pick_device("auto") == torch.device("xpu")


@pytest.mark.parametrize("name", ["", "gpu", "Auto", "cuda:99", "cuda:x", "meta", "xla", "hpu"])
def test_a_missing_device_is_refused_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        pick_device(name)
    message = str(caught.value)
    start = f"Expected a device that is here (auto, cpu), but got {name!r}: "
    assert message.startswith(start)
    assert "\n" not in message
    assert len(message) < 350


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_devices_are_found() -> None:
    assert pick_device("auto").type == "cuda"
    assert pick_device("cuda:0") == torch.device("cuda", 0)


def test_free_memory_is_known_for_the_cpu_only() -> None:
    left = memory_left(torch.device("cpu"))
    assert left is None or 2**20 < left < 2**50
    assert memory_left(torch.device("meta")) is None


def test_memory_errors_are_recognised() -> None:
    assert runs_out_of_memory(torch.OutOfMemoryError("CUDA"))
    assert runs_out_of_memory(MemoryError())
    assert runs_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you ..."))
    assert not runs_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not runs_out_of_memory(ValueError("not enough memory of the past"))


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="nothing to set without CUDA")
def test_overlapping_blocks_of_exact_convolutions_restore_what_was_set() -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        first, second = exact_convolutions(), exact_convolutions()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert not torch.backends.cudnn.allow_tf32
        second.__exit__(None, None, None)
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("lacking", [RuntimeError("Failed to find C compiler"), OSError("no room")])
def test_kernels_that_cannot_be_compiled_are_not_taken(
    lacking: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(device: torch.device) -> None:
        raise lacking

    kernels = ModuleType("disinherit.common.tensors.fused")
    kernels.try_on = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    monkeypatch.setattr(tensors, "fused", kernels, raising=False)
    monkeypatch.setattr(devices, "find_spec", lambda name: object())
    has_triton.cache_clear()
    try:
        assert not has_triton(torch.device("cuda", 7))
        assert not has_triton(torch.device("cuda", 7))
    finally:
        has_triton.cache_clear()
    assert [str(lacking) in one.message for one in caplog.records] == [True]  # tried once
