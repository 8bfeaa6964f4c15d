"""The lines of the package that a test run goes through, for the report of coverage.py.

    pytest -p tests.support.line_coverage ...

Before Python 3.12, coverage.py has every library traced, too: half as long again as the tests take.
SlipCover puts its probes into our own code only, as it is imported, and takes them out once they
have been met.  The lines are stored as coverage.py stores them: report and bound are its own.
"""

import copyreg
import os
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slipcover
from coverage import CoverageData

from tests import ROOT

_GENERATED = "disinherit.v1"


def _folders() -> list[str]:
    """The folders that the package's own code is in."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    places: dict[str, str] = settings["tool"]["setuptools"]["package-dir"]
    return [str(ROOT / place) for package, place in places.items() if package != _GENERATED]


def _modules() -> Iterator[str]:
    """All files of the package, also those that no test imports."""
    for folder in _FOLDERS:
        for place, inside, files in os.walk(folder):
            inside[:] = [one for one in inside if Path(place, one, "__init__.py").exists()]
            yield from (str(Path(place, file)) for file in files if file.endswith(".py"))


def _send_unread(_: object) -> tuple[Any, ...]:
    """What a probe becomes in a function that is sent to another process as code, as Ray does."""
    nobody = SimpleNamespace(newly_seen=defaultdict(set))
    return slipcover.probe.new, (nobody, "", 0, _NEVER)


_NEVER = 2**31 - 1
_FOLDERS = _folders()
_PROBES = slipcover.Slipcover()
_OURS = slipcover.FileMatcher(sources=_FOLDERS)
slipcover.ImportManager(_PROBES, _OURS).__enter__()
slipcover.wrap_spec_from_file_location(_PROBES, _OURS)  # as alembic loads migrations
if sys.version_info < (3, 12):
    copyreg.pickle(type(slipcover.probe.new(_PROBES, "", 0, _NEVER)), _send_unread)
_seen: defaultdict[str, set[int]] = defaultdict(set)


def _lines() -> dict[str, list[int]]:
    """File -> lines that this process has gone through."""
    files = _PROBES.get_coverage()["files"]
    return {str((ROOT / name).resolve()): file["executed_lines"] for name, file in files.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of several processes went through."""
    for file, lines in getattr(node, "workeroutput", {}).get("lines", {}).items():
        _seen[file].update(lines)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what this process went through, or store what all did."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["lines"] = _lines()
        return
    for file, lines in _lines().items():
        _seen[file].update(lines)
    data = CoverageData(str(ROOT / ".coverage"))
    data.erase()
    data.add_lines(_seen)
    data.touch_files(list(_modules()))
    data.write()
