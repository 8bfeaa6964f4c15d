"""The coordinator's cost of a request, per owner and model, beside an earlier state of the code.

Each state runs in a process of its own and on databases of its own (`pass_worker.py`), and they
take turns.  Answers come from a transport that knows what owners would say; their time does not
count.

now      this state
before   commit 6531f27, before a pass was one object and made one transaction for each answer

CPU and clock are those of submitting and carrying out, in milliseconds per model, as means over
the turns, and the ratio is that of the means.  Some turns collect all garbage, with the earlier
state every other one, so that a median says little.
"""

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from measuring import Claim, Figures, arguments, report

EARLIER = "6531f27"
FOLDERS = ("common", "client", "server", "simulations", "deploy", "cli")
SIZES = ((200, 1), (50, 10), (5, 100))
"""Owners, and the models of each."""

TURNS = 8


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    sizes = ((3, 2),) if options.reduced else SIZES
    rows, claims = [], []
    with tempfile.TemporaryDirectory(prefix="disinherit-") as folder, states(Path(folder)) as found:
        for owners, models in sizes:
            rows.append(compare(found, owners, models, 1 if options.reduced else TURNS))
            if "before" in found:
                what = f"coordinator's CPU before / now, {owners} owners x {models} models"
                claims.append(Claim(5, what, rows[-1]["before / now"], at_least=2))
    title = "A request at the coordinator: CPU and clock in ms per model, transactions per owner"
    report(options, "coordinator_pass", title, rows, claims)


class State:
    """A process in which one state of the code runs.

    Args:
        folder: an empty folder for its databases.
        source: the folder with its `disinherit`; `None` for what is installed.
    """

    def __init__(self, folder: Path, source: Path | None) -> None:
        environment = dict(os.environ)
        if source is not None:
            environment["PYTHONPATH"] = str(source)
        worker = Path(__file__).with_name("pass_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, str(worker), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def run(self, owners: int, models: int, what: str) -> Mapping[str, float]:
        """Have a request submitted and carried out, and return what it took.

        Args:
            owners: how many there are.
            models: of each.
            what: `measure`, or `count` for transactions and statements.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{owners} {models} {what}\n")
        self._process.stdin.flush()
        found: Mapping[str, float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def states(folder: Path) -> Iterator[Mapping[str, State]]:
    """Start this state and, where its history is at hand, the earlier one.

    Args:
        folder: an empty folder.
    """
    sources: dict[str, Path | None] = {"now": None}
    source = unpack(folder / "source")
    if source is None:
        print(f"There is no commit {EARLIER} here: only this state is measured.")
    else:
        sources["before"] = source
    found = {}
    try:
        for name, where in sources.items():
            (folder / name).mkdir()
            found[name] = State(folder / name, where)
        yield found
    finally:
        for state in found.values():
            state.close()


def unpack(folder: Path) -> Path | None:
    """Return a folder from which the earlier state is imported, or `None` if it is not known."""
    here = Path(__file__).parent.parent
    command = ["git", "-C", str(here), "archive", EARLIER]
    archived = subprocess.run(command, capture_output=True, check=False)
    if archived.returncode:
        return None
    with tarfile.open(fileobj=BytesIO(archived.stdout)) as archive:
        archive.extractall(folder, filter="data")
    package = folder / "imported" / "disinherit"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in FOLDERS:
        (package / name).symlink_to(folder / name)
    (package / "v1").symlink_to(folder / "protos" / "disinherit" / "v1")
    return package.parent


def compare(found: Mapping[str, State], owners: int, models: int, turns: int) -> Figures:
    """Measure one size with each state, turn by turn, after one that does not count."""
    measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in found}
    for turn in range(turns + 1):
        for name, state in found.items():
            took = state.run(owners, models, "measure")
            if turn:
                measured[name].append(took)
    row: Figures = {"owners": owners, "models": owners * models}
    count = owners * models
    for kind, title in (("cpu", "CPU"), ("wall", "clock")):
        for name in found:
            row[f"{title}, {name}"] = 1000 * mean(measured[name], kind) / count
    counted = {name: state.run(owners, models, "count") for name, state in found.items()}
    for name in found:
        row[f"transactions, {name}"] = counted[name]["transactions"] / owners
    for name in found:
        row[f"statements per model, {name}"] = counted[name]["statements"] / count
    if "before" in found:
        row["before / now"] = mean(measured["before"], "cpu") / mean(measured["now"], "cpu")
    return row


def mean(measured: Sequence[Mapping[str, float]], kind: str) -> float:
    """Return the mean of one kind of figure."""
    return statistics.fmean(one[kind] for one in measured)


if __name__ == "__main__":
    main()
