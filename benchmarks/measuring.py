"""What all benchmarks share: timing side by side, memory, the machine's rates, stored figures.

Figures are ratios within one run. The functions that are compared take turns, so that whatever
else the machine does meets all of them alike, and each is called once before, unmeasured.
Everything runs on one thread, so that CPU time is a fair measure on a machine that others use too.

A benchmark is a script of this folder that is listed in `run.py`. Its `main` calls `arguments`
first and `report` last.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from figures import FIGURES, cell, wanted

_M_MMAP_THRESHOLD = -3  # of mallopt(3)

Figures = dict[str, Any]


def arguments(description: str) -> argparse.Namespace:
    """Read what every benchmark is called with: `--reduced` and `--out`."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="small sizes: only shows it runs")
    parser.add_argument("--out", type=Path, help="folder to store the figures in")
    torch.set_num_threads(1)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of repeated calls, turn by turn.

    Attributes:
        cpu: CPU seconds of this process.
        wall: seconds on the clock.
    """

    cpu: Sequence[float]
    wall: Sequence[float]

    @property
    def seconds(self) -> float:
        """The median of the CPU seconds."""
        return statistics.median(self.cpu)

    def over(self, other: "Times") -> float:
        """Return how many times as long this took as `other`: the median over the turns."""
        return statistics.median(a / b for a, b in zip(self.cpu, other.cpu, strict=True))


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure that a target of `docs/performance.md` is about.

    Attributes:
        target: number of the target's section.
        what: the figure in words; the same from run to run.
        value: what was measured.
        at_most: the target, if it is an upper bound.
        at_least: the target, if it is a lower bound.
        limit: the best value that the hardware allows, where it can be computed.
    """

    target: int
    what: str
    value: float
    at_most: float | None = None
    at_least: float | None = None
    limit: float | None = None


def side_by_side(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    """Time functions that take turns.

    Args:
        runs: what to measure, by name.
        repeats: measured calls of each, after one that is not.
    """
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            clock, spent = time.perf_counter(), time.process_time()
            run()
            if turn:
                cpu[name].append(time.process_time() - spent)
                wall[name].append(time.perf_counter() - clock)
    return {name: Times(cpu[name], wall[name]) for name in runs}


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
    before = memory_in_use()
    run()
    return most_memory() - before


def memory_in_use() -> int:
    """Return how many bytes of memory this process has; `most_memory` starts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def most_memory() -> int:
    """Return how many bytes of memory this process has had at most since `memory_in_use`."""
    return _memory("VmHWM")


def copy_rate() -> float:
    """Return the bytes a second that one thread reads and writes when it copies memory."""
    source = torch.ones(64 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(side_by_side({"": lambda: target.copy_(source)}, 9)[""].cpu)


def flop_rate() -> float:
    """Return the float32 operations a second that one thread does in a matrix product."""
    size = 1024
    left, right = torch.rand(2, size, size)
    return 2 * size**3 / min(side_by_side({"": lambda: left @ right}, 5)[""].cpu)


def environment() -> Figures:
    """Return what a figure depends on besides the code."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "copied_gigabytes_per_second": round(copy_rate() / 1e9, 2),
        "gigaflops_per_second": round(flop_rate() / 1e9, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def report(
    options: argparse.Namespace,
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    claims: Sequence[Claim],
) -> None:
    """Print a table, and store it with the environment if there is a folder for it.

    Args:
        options: of `arguments`.
        name: of the benchmark.
        title: says what the table shows, in which unit.
        rows: column -> text, number, `Times` (shown as its median) or None.
        claims: the figures that targets are about.
    """
    shown = [{k: v.seconds if isinstance(v, Times) else v for k, v in r.items()} for r in rows]
    _print_table(title, shown)
    for claim in claims:
        print(f"{claim.what}: {claim.value:.3g}, wanted {wanted(asdict(claim))}")
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "environment": environment() | {"reduced": options.reduced},
        "title": title,
        "rows": [{k: _stored(v) for k, v in row.items()} for row in rows],
        "claims": [asdict(claim) for claim in claims],
    }
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _stored(value: object) -> object:
    if not isinstance(value, Times):
        return value
    return {
        "cpu": value.seconds,
        "cpu_least": min(value.cpu),
        "wall": statistics.median(value.wall),
        "repeats": len(value.cpu),
    }


def _print_table(title: str, rows: Sequence[Figures]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns] + [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"Expected {field} in /proc/self/status, but it is not there.")


def processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    command = ["git", "-C", str(FIGURES.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
