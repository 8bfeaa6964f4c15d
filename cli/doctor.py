"""`disinherit doctor`: what this machine has and lacks."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.connection import Connection, connected
from disinherit.cli.output import Format, FormatOption, as_time, print_json
from disinherit.cli.tables import print_table, state_text
from disinherit.common.errors import DisinheritError
from disinherit.common.extras import EXTRAS, OF_UNIX, OTHER_SYSTEM, how_to_install

EXAMPLES = (
    "Examples:\n\ndisinherit doctor\n\ndisinherit doctor --server fleet.org:50051 --ca ca.pem"
)

_FREE_BYTES = 1 << 30
_PORTS = range(50051, 50056)
_TOLERATED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found of one thing.

    Attributes:
        what: the thing.
        state: ok, problem, or missing for what only some commands need.
        found: what is there.
        advice: what to do; `""` for nothing.
    """

    what: str
    state: str
    found: str
    advice: str = ""


@connected
def doctor(
    connection: Connection,
    folder: Annotated[Path, typer.Option(help="Where models and data are to be.")] = Path(),
    form: FormatOption = Format.TABLE,
) -> int:
    """Check what this machine has and lacks; exit code 1 if it lacks something.

    The coordinator is asked if --server or DISINHERIT_SERVER names one.
    """
    found = [*_machine(folder), *_extras(), *_ports(), *_coordinator(connection)]
    if form is Format.JSON:
        print_json(
            [
                {"what": one.what, "state": one.state, "found": one.found, "advice": one.advice}
                for one in found
            ]
        )
    else:
        print_table(
            ("what", "state", "found", "do"),
            [[one.what, state_text(one.state), one.found, one.advice] for one in found],
            whole=("what", "state"),
        )
    return 1 if any(one.state == "problem" for one in found) else 0


def _machine(folder: Path) -> Iterator[Reading]:
    lacking = [name for name in OF_UNIX if importlib.util.find_spec(name) is None]
    if lacking:
        said = f"{platform.system()}, without {', '.join(lacking)}"
        yield Reading("system", "problem", said, f"Expected Linux or macOS. {OTHER_SYSTEM}.")
    else:
        yield Reading("system", "ok", platform.system())
    version = ".".join(map(str, sys.version_info[:3]))
    yield Reading("Python", "ok", version)
    for package in ("torch", "disinherit"):
        yield _installed(package)
    # Nothing was written in the future, unless the clock is behind.
    behind = Path(__file__).stat().st_mtime - time.time()
    now = as_time(int(time.time() * 1e6)) or ""
    if behind > _TOLERATED_SECONDS:
        yield Reading("clock", "problem", now, "The clock is behind this program's files: set it.")
    else:
        yield Reading("clock", "ok", now)
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Reading("disk", "problem", f"{folder}: {error.strerror}", "Choose another --folder.")
    else:
        few = free < _FREE_BYTES
        said = f"{free / 1e9:.1f} GB free in {folder.absolute()}"
        advice = "Models and reports may not fit: make room." if few else ""
        yield Reading("disk", "problem" if few else "ok", said, advice)
    nginx = shutil.which("nginx")
    yield Reading(
        "nginx",
        "ok" if nginx else "missing",
        nginx or "not found",
        "" if nginx else "Only disinherit deploy needs it: apt-get install nginx.",
    )


def _installed(package: str) -> Reading:
    try:
        return Reading(package, "ok", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Reading(package, "problem", "not installed", "Run pip install . in a checkout.")


def _extras() -> Iterator[Reading]:
    for extra in dict.fromkeys(EXTRAS.values()):
        packages = [name for name, bringing in EXTRAS.items() if bringing == extra]
        lacking = [name for name in packages if importlib.util.find_spec(name) is None]
        if lacking:
            said = f"without {', '.join(lacking)}"
            yield Reading(f"extra {extra}", "missing", said, f"If needed: {how_to_install(extra)}")
        else:
            yield Reading(f"extra {extra}", "ok", ", ".join(packages))


def _ports() -> Iterator[Reading]:
    taken = [port for port in _PORTS if _listens(port)]
    said = f"taken: {', '.join(map(str, taken))}" if taken else "free"
    yield Reading(
        f"ports {_PORTS[0]}-{_PORTS[-1]}",
        "missing" if taken else "ok",
        said,
        "Unless that is a coordinator of yours, choose others: --listen, --port." if taken else "",
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _coordinator(connection: Connection) -> Iterator[Reading]:
    named = connection.server != Connection().server or "DISINHERIT_SERVER" in os.environ
    if not named:
        return
    try:
        serving = connection.health()
    except DisinheritError as error:
        yield Reading("coordinator", "problem", connection.server, str(error))
        return
    state, said = ("ok", "serving") if serving else ("problem", "does not serve")
    advice = "" if serving else "It answers, but its store does not: see its log."
    yield Reading("coordinator", state, f"{connection.server}: {said}", advice)
