"""Attack the changes of roots, and store what came out.

    python -m disinherit.simulations.bench.reconstruction docs/figures/reconstruction.json

It takes some ten minutes on one core, and gives the same figures on the same kind of machine.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from disinherit.simulations.bench.reconstruction.measuring import GROUPS, load_world, measured

_FIGURES = ("cosine", "ssim", "recognised", "told apart", "effect", "accuracy")


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table in Markdown, and store the figures if there is a file for them."""
    parser = argparse.ArgumentParser(prog="python -m disinherit.simulations.bench.reconstruction")
    parser.add_argument("out", type=Path, nargs="?", help="file to store the figures in")
    parser.add_argument("--data", default="fashion-mnist", help="images of 28 x 28 pixels")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = measured(load_world(options.data), GROUPS)
    print(table(rows))
    if options.out is not None:
        environment = {
            "data": options.data,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        found = {"environment": environment, "rows": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table in Markdown: each cell has the figure for every size of a request."""
    lines = [
        f"| root | protection | {' | '.join(_FIGURES)} |",
        "| --- " * (len(_FIGURES) + 2) + "|",
    ]
    first = rows[0]["root"], rows[0]["protection"]
    of_first = [row for row in rows if (row["root"], row["protection"]) == first]
    near = [_cell(of_first, f"unrelated {name}") for name in _FIGURES[:2]]
    lines.append(f"| | nearest unrelated image | {' | '.join(near)} | | | | |")
    for root, protection in dict.fromkeys((row["root"], row["protection"]) for row in rows):
        alike = [row for row in rows if (row["root"], row["protection"]) == (root, protection)]
        cells = " | ".join(_cell(alike, name) for name in _FIGURES)
        lines.append(f"| {root} | {protection} | {cells} |")
    return "\n".join(lines)


def _cell(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return " / ".join(f"{row[name]:.2f}" for row in rows)


if __name__ == "__main__":
    main(sys.argv[1:])
