"""Devices: choice at run time, free memory, precision, and whether Triton compiles for one."""

import logging
import resource
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

from disinherit.common.errors import InputError

_log = logging.getLogger(__name__)


def pick_device(name: str = "auto") -> torch.device:
    """Return the device with this name.

    Args:
        name: `auto` for the accelerator that PyTorch finds, else the CPU; or `cpu`, `cuda:1`, ...

    Raises:
        InputError: if the device does not exist here.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" is a device, but holds no values
    except (RuntimeError, AssertionError, ImportError) as error:
        available = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
        raise InputError(
            f"Expected a device that is here (auto, {available}), but got {name!r}: "
            f"{str(error).splitlines()[0].split('. ')[0]}."
        ) from None
    return device


def described(device: torch.device) -> str:
    """Return the name of a device for figures, with that of the accelerator.

    Example:
        >>> described(torch.device("cpu"))
        'cpu'
    """
    module = torch.get_device_module(device) if is_accelerator(device) else None
    named = getattr(module, "get_device_name", None)  # not every kind has names
    return f"{device} ({named(device)})" if named else str(device)


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed what it was asked for, before a clock is read."""
    if is_accelerator(device):
        torch.accelerator.synchronize(device)


@cache
def has_triton(device: torch.device) -> bool:
    """Return whether the kernels of `disinherit.common.tensors.fused` run on a device.

    They are tried once: Triton may be there without the C compiler that it needs.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    try:
        from disinherit.common.tensors import fused

        fused.try_on(device)
    except Exception as error:  # Triton fails with any type of error
        _log.warning("PyTorch's own calls are taken on %s, as Triton fails: %s", device, error)
        return False
    return True


def is_accelerator(device: torch.device) -> bool:
    """Return whether each call on a device costs as much as many values."""
    return device.type != "cpu"


class _Precision:
    """The precision of convolutions in this process, and who needs a float32 of 24 bits.

    Blocks of several threads overlap: the last one restores what was set before the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._allowed = True

    @contextmanager
    def exact(self) -> Iterator[None]:
        with self._lock:
            if not self._blocks:
                self._allowed = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = False
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    torch.backends.cudnn.allow_tf32 = self._allowed


_precision = _Precision()


def exact_convolutions() -> AbstractContextManager[None]:
    """Compute convolutions of float32 in float32 on CUDA, too, within the block.

    PyTorch lets cuDNN take TF32, with 10 bits of mantissa: the Fisher information of a ResNet-18
    then differed by 3 % of its largest value.
    """
    return _precision.exact()


def memory_left(device: torch.device) -> int | None:
    """Return how many bytes can be allocated on a device; `None` if unknown.

    A kernel that overcommits memory kills the process, and no error can be caught.  So large
    allocations are compared with this value first.

    Args:
        device: the CPU, for which the system and the process's limits are read, or another device,
            which refuses by itself.
    """
    if is_accelerator(device):
        return None
    left = [
        _number(line) * 1024 for line in _lines(Path("/proc/meminfo")) if "MemAvailable" in line
    ]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        used = [
            _number(line) * 1024 for line in _lines(Path("/proc/self/status")) if "VmSize" in line
        ]
        left += [max(0, limit - value) for value in used]
    group = Path("/sys/fs/cgroup")
    most = [_number(line) for line in _lines(group / "memory.max") if line.strip().isdigit()]
    held = [_number(line) for line in _lines(group / "memory.current")]
    # The page cache is released when memory is needed.
    cached = [_number(x) for x in _lines(group / "memory.stat") if x.startswith("inactive_file")]
    left += [max(0, m - h + c) for m, h, c in zip(most, held, cached or [0], strict=False)]
    return min(left, default=None)


def runs_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports too little memory, on any device."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(
            phrase in text for phrase in ("out of memory", "not enough memory", "allocate memory")
        )
    )


def readable_bytes(size: int) -> str:
    """Return a number of bytes in readable form.

    Example:
        >>> readable_bytes(2_050_000_000), readable_bytes(1536)
        ('2.0 GB', '1.5 kB')
    """
    value, unit = float(size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(line: str) -> int:
    return next((int(word) for word in line.split() if word.isdigit()), 0)
