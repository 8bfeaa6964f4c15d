"""Peak memory of a call, by the kernel's high-water mark.

Neither Python's allocator nor torch's sees the other's memory.  The kernel sees both: the peak of
the process's resident set is reset before the call and read after it (Linux); what was resident
before is subtracted.  One process does one thing at a time, so nothing else is in the figure.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def with_peak(call: Callable[[], T]) -> tuple[T, int | None]:
    """Call something and return what it returned, with the bytes that it took at most.

    The bytes are `None` where the kernel cannot say.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK)
        before = _resident("VmRSS")
    except OSError:
        return call(), None
    result = call()
    return result, max(0, _resident("VmHWM") - before)


def _resident(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in {_STATUS}")
