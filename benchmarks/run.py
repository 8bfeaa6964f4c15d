"""Run the benchmarks, each in a process of its own, and put their figures into the documentation.

python benchmarks/run.py                      # all, into docs/figures and docs/performance.md
python benchmarks/run.py apply tuning         # some of them
python benchmarks/run.py --reduced --out DIR  # small sizes: only shows that each runs
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from figures import FIGURES
from render import render

BENCHMARKS = (
    "head_fisher",
    "layer_fisher",
    "apply",
    "many_models",
    "request",
    "coordinator_pass",
    "parallel",
    "cores",
    "wire",
    "graph",
    "tuning",
    "inheriting",
    "inheriting_sizes",
    "families",
    "discovering",
    "discovering_directions",
    "agent_install",
    "load",
    "fleet",
)
"""Scripts of this folder, in the order of the targets of docs/performance.md."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main() -> None:
    """Run, and stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--reduced", action="store_true", help="small sizes: only shows it runs")
    parser.add_argument("--out", type=Path, help="folder to store the figures in")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"Expected names of {', '.join(BENCHMARKS)}, but got {', '.join(unknown)}.")
    if options.reduced and options.out is None:
        parser.error("Expected --out with --reduced: reduced figures say nothing about speed.")
    for name in options.names or BENCHMARKS:
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py"))]
        command += ["--out", str(options.out or FIGURES), *["--reduced"] * options.reduced]
        code = subprocess.run(command, env=os.environ | _ONE_THREAD, check=False).returncode
        if code:
            sys.exit(f"Benchmark {name!r} failed with exit code {code}.")
    if options.out is None:
        render()


if __name__ == "__main__":
    main()
