"""Descendants found among 1,000 files of weights, a megabyte each, from weights alone.

Ten families of a base and fine-tunes of fine-tunes, each a short random step from its parent; and
as many strangers as families.  CPU seconds of one call; memory beyond what was in use before.
"""

import json
import random
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import Figures, arguments, peak_bytes, report

from disinherit.families.discovering import discover

VALUES = 2**18
"""Values of a model, four bytes each."""

_FAMILIES = 10
_STEP = 0.05  # of a fine-tune, relative to its parent


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    _row(20)  # loads what is loaded once
    rows = [_row(100 if options.reduced else 1_000)]
    report(options, "discovering", "Discovery: CPU seconds, and MB of memory", rows, [])


def _row(count: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="disinherit-") as folder:
        parents = _write(Path(folder), count)
        bases = [name for name, parent in parents.items() if parent == "base"]
        memory = peak_bytes(lambda: discover(Path(folder), bases))
        started = time.process_time()
        found = discover(Path(folder), bases)
        seconds = time.process_time() - started
    pairs = {(one.child, one.parents[0][0]) for one in found.kin}
    true = {(name, parent) for name, parent in parents.items() if parent in parents}
    return {
        "files of a megabyte": count,
        "fine-tunes": len(true),
        "found": len(true & pairs),
        "missed": len(true - pairs),
        "wrong": len(pairs - true),
        "seconds": seconds,
        "memory": memory / 1e6,
    }


def _write(root: Path, count: int) -> dict[str, str]:
    """Write the models, and return model -> its parent, `base`, or nothing for a stranger."""
    chosen, draw = random.Random(0), np.random.default_rng(0)
    families: list[list[str]] = [[] for _ in range(_FAMILIES)]
    values: dict[str, np.ndarray] = {}
    parents: dict[str, str] = {}
    for number in range(count):
        name = f"model-{number:04}"
        fresh = draw.standard_normal(VALUES, np.float32)
        family = families[number % _FAMILIES]
        if number >= count - _FAMILIES:
            values[name], parents[name] = fresh, ""
        elif not family:
            values[name], parents[name] = fresh, "base"
            family.append(name)
        else:
            parent = chosen.choice(family)
            values[name], parents[name] = values[parent] + _STEP * fresh, parent
            family.append(name)
        _save(root / f"{name}.safetensors", values[name])
    return parents


def _save(path: Path, values: np.ndarray) -> None:
    entry = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())


if __name__ == "__main__":
    main()
