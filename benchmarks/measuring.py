"""What all benchmarks share: timing side by side, memory, the machine's limits, stored figures.

Figures are ratios within one run. The functions that are compared take turns, so that whatever
else the machine does meets all of them alike, and each is called once before, unmeasured.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
_M_MMAP_THRESHOLD = -3  # of mallopt(3)

Figures = dict[str, Any]


def arguments(description: str) -> argparse.Namespace:
    """Read what every benchmark is called with: `--reduced` and `--out`."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="small sizes: only shows it runs")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the stored figures")
    return parser.parse_args()


def side_by_side(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of functions that take turns.

    Args:
        runs: what to measure, by name.
        repeats: measured calls of each, after one that is not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes(run: Callable[[], object]) -> int:
    """Return how many bytes of memory a call needed at most, beyond what was in use before.

    It is called once before, so that what stays allocated after a first call does not count.
    """
    allocator = ctypes.CDLL(None)
    # It would keep what is freed, and what the second call takes of that would not be seen.
    allocator.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    run()
    gc.collect()
    allocator.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _memory("VmRSS")
    run()
    return _memory("VmHWM") - before


def copy_rate() -> float:
    """Return the bytes a second that this machine reads and writes when it copies memory."""
    source = torch.ones(64 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = side_by_side({"copy": lambda: target.copy_(source)}, 9)["copy"]
    return 2 * source.numel() / seconds


def environment() -> Figures:
    """Return what a figure depends on besides the code."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def store(folder: Path, name: str, figures: object) -> None:
    """Write figures with the environment they were measured in."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"performance-{name}.json"
    content = {"environment": environment(), "figures": figures}
    file.write_text(json.dumps(content, indent=1) + "\n")


def show(title: str, rows: list[Figures]) -> None:
    """Print rows as a table; what one does not have stays empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns] + [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"Expected {field} in /proc/self/status, but it is not there.")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    command = ["git", "-C", str(FIGURES.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
