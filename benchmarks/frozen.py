"""Frozen figures: what the demo and the quick suite computed before a restructuring, to the bit.

    make frozen          # some five minutes; compares with docs/figures/frozen.json
    python benchmarks/frozen.py --write

Digests of weights depend on the processor and on PyTorch's build, so that a comparison means
something only on the machine, or the kind of machine, that wrote the file. Durations, memory and
dates are left out; everything else has to be equal.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measuring import processor

FILE = Path(__file__).parent.parent / "docs/figures/frozen.json"
_VARIES = {"created", "environment", "timing", "disinherit", "peak_bytes", "seconds"}


def _kept(value: Any) -> Any:
    """Return a JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {
            key: _kept(item)
            for key, item in value.items()
            if key not in _VARIES and not key.endswith("_seconds")
        }
    return [_kept(item) for item in value] if isinstance(value, list) else value


def _digest(value: Any) -> str:
    text = json.dumps(_kept(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def figures(folder: Path) -> dict[str, Any]:
    """Run the demo and the quick suite into a folder; return their figures, or digests of them."""
    command = Path(sys.executable).with_name("disinherit")
    demo = folder / "demo"
    quick = folder / "quick"
    subprocess.run([command, "demo", "--out", demo], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [command, "bench", "run", "quick", "--out", quick], check=True, stdout=subprocess.DEVNULL
    )
    return collected(demo, quick)


def collected(demo: Path, quick: Path) -> dict[str, Any]:
    """Return the figures of a demo and of a quick suite that have been run."""
    report = json.loads((demo / "report.json").read_text())
    cells = sorted((quick / "cells").glob("*/*.json"))
    return {
        "environment": {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "processor": processor(),
        },
        "demo": {
            "models": {
                model["id"]: {
                    "digest_before": model["digest_before"],
                    "digest_after": model["digest_after"],
                    "outcome": model["outcome"],
                    "all": _digest(model),
                }
                for model in report["models"]
            },
            "campaign": report["campaign"],
            "repeat": report["repeat"],
            "graph": _digest(report["graph"]),
            "splits": _digest(report["splits"]),
        },
        "quick": {
            str(cell.relative_to(quick / "cells").with_suffix("")): _digest(
                json.loads(cell.read_text())
            )
            for cell in cells
        },
    }


def _differences(stored: Any, now: Any, where: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(stored.keys() | now.keys())
            for line in _differences(stored.get(key), now.get(key), f"{where}/{key}")
        ]
    return [] if stored == now else [f"{where}: {stored} -> {now}"]


def main() -> int:
    """Write the file, or compare with it. Return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store what this state computes")
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        now = figures(Path(folder))
    if write:
        FILE.write_text(json.dumps(now, indent=1) + "\n")
        return 0
    stored = json.loads(FILE.read_text())
    different = _differences(stored, now)
    if stored["environment"] != now["environment"]:
        print(
            f"Stored on {stored['environment']}, and this is {now['environment']}: weights differ "
            "by processor and build. Run it with --write on the older state here, then compare."
        )
    print("\n".join(different) or "The demo and the quick suite are as stored, bit for bit.")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
