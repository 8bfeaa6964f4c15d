"""What a device needs to own models: pip install of the agent's part alone, and its start.

An empty environment gets what `pip install '.[agent]'` installs, and nothing else.  In it,
none of Flower, Ray, a database or a web stack may be found, `disinherit agent --help` must answer,
and an agent must enrol, connect over mutual TLS and unlearn in a model.  Then are measured CPU and
clock of a new process until it has ended, and its largest memory; what takes turns is called once
before, so that its files are in memory.  Sizes on disk are those of `benchmarks/packages.py`.

With `--reduced` nothing is installed: what the part needs is linked from this environment.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from measuring import Figures, arguments, report

from disinherit.v1 import unlearning_pb2 as upb

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from tests.support import lean_install  # noqa: E402

STARTS: Mapping[str, Sequence[str]] = {
    "start: Python alone": ("-c", "pass"),
    "start: PyTorch alone": ("-c", "import torch"),
    "start: disinherit agent --help": ("-c", lean_install.AGENT_HELP, "agent", "--help"),
    "start: an agent, ready to dial": ("-c", "from disinherit.client.agent import agent"),
}
START = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
clock = time.perf_counter() - started
print(json.dumps([usage.ru_utime + usage.ru_stime, clock, usage.ru_maxrss / 1024]))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Starts a process and prints what it took.

From a process of its own: what is told as the memory of one that was just started is that of the
one which started it.
"""


def main() -> None:
    """Install, check, measure, print and store."""
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        if options.reduced:
            python = lean_install.link_part(folder / "venv", "agent")
        else:
            python = install(folder)
        seconds = time.perf_counter() - started
        check(python, folder)
        rows = [
            {"what": "pip install", "seconds": round(seconds, 1)},
            *starts(python, 1 if options.reduced else 5),
        ]
    title = (
        "An agent in an environment of its own: seconds of CPU and on the clock, and megabytes of "
        "memory at most"
    )
    report(options, "agent_install", title, rows, ())


def install(folder: Path) -> str:
    """Have pip install the agent's part from a copy of this checkout; return the Python."""
    copy = folder / "checkout"
    unwanted = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "docs")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    python = str(folder / "venv" / "bin" / "python")
    _run([sys.executable, "-m", "venv", str(folder / "venv")])
    words = ["install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    _run([python, "-m", "pip", *words, f"{copy}[agent]"])
    return python


def check(python: str, folder: Path) -> None:
    """Stop unless an agent works there, and nothing is there that it must do without."""
    found = lean_install.installed(python, lean_install.NOT_FOR_AGENTS)
    if found:
        sys.exit(f"Expected an agent to need none of {', '.join(found)}, but they are installed.")
    _run([python, "-c", lean_install.AGENT_HELP, "agent", "--help"])
    home = folder / "fleet"
    home.mkdir()
    result = lean_install.unlearn_over_tls(python, home)
    if result.outcome != upb.OUTCOME_APPLIED:
        sys.exit(f"Expected an agent there to unlearn, but: {result.error}")


def starts(python: str, turns: int) -> Iterator[Figures]:
    """Yield the medians of what new processes take; they take turns."""
    taken: dict[str, list[list[float]]] = {what: [] for what in STARTS}
    for turn in range(turns + 1):
        for what, words in STARTS.items():
            once = json.loads(_run([python, "-c", START, python, *words]))
            if turn:
                taken[what].append(once)
    for what, turns_taken in taken.items():
        cpu, clock, memory = map(statistics.median, zip(*turns_taken, strict=True))
        yield {
            "what": what,
            "CPU seconds": round(cpu, 2),
            "seconds": round(clock, 2),
            "MB of memory": round(memory),
        }


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Expected {command[:4]} to end well, but: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
