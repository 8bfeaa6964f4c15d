"""An environment with nothing in it but what a part of Disinherit says it needs.

Nothing is downloaded: what the part needs, and what that needs in turn, is linked from the
environment of the tests.  `benchmarks/agent_install.py` has pip do the same.
"""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from disinherit.server.agents.transport import AgentTransport
from disinherit.server.transport.base import Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests import ROOT
from tests.support.agent import AgentsSide, wait_for
from tests.support.client_tasks import apart, collect, make_method, make_task
from tests.support.owner import LABELS, PointsOwner

NOT_FOR_AGENTS = (
    *("flwr", "ray"),
    *("sqlalchemy", "alembic", "psycopg"),
    *("fastapi", "starlette", "uvicorn", "grpc_health", "grpc_reflection"),
    *("scipy", "pandas", "sklearn", "datasets"),
)
"""Modules that a device must do without."""

AGENT_HELP = "from disinherit.cli.main import main; main()"
"""The `disinherit` command, for where its script is not."""


def link_part(folder: Path, extra: str) -> str:
    """Make an environment that has Disinherit and what one of its extras needs.

    Args:
        folder: of the environment; it does not exist.
        extra: as in `pip install '.[EXTRA]'`.

    Returns:
        Its Python.
    """
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, timeout=240)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in sorted(_closure(_requirements(extra))):
        found = importlib.metadata.distribution(name)
        # Without what is installed elsewhere: scripts have a path that begins with "..".
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():  # folders that several share, as google's
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    own = site / "disinherit"
    own.mkdir()
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package, path in folders["tool"]["setuptools"]["package-dir"].items():
        if name := package.partition(".")[2]:
            (own / name).symlink_to(ROOT / path)
        else:  # the package itself, which has the others as folders
            for module in (ROOT / path).glob("*.py"):
                (own / module.name).symlink_to(module)
    return str(folder / "bin" / "python")


def installed(python: str, modules: Sequence[str]) -> list[str]:
    """Return which of some modules an environment has."""
    code = "import importlib.util, json, sys\n"
    code += "print(json.dumps([m for m in sys.argv[1:] if importlib.util.find_spec(m)]))"
    done = subprocess.run(
        [python, "-c", code, *modules], capture_output=True, text=True, check=True, timeout=60
    )
    return list(json.loads(done.stdout))


def unlearn_over_tls(python: str, folder: Path) -> pb.ModelResult:
    """Have an agent in another environment enrol, connect and unlearn in a small model.

    Args:
        python: of that environment.
        folder: for everything that is kept.

    Returns:
        What it answered.
    """
    method = make_method()
    with PointsOwner(folder / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        task = make_task(owner, ["m"], collect(owner, "m", ["cat"], method), method)
    with AgentsSide(folder) as side, side.process("anna", python=python) as process:
        wait_for(lambda: side.connected() == ["anna"] or process.poll() is not None, 60.0)
        transport = AgentTransport(side.hub, side.blobs)
        (answer,) = transport.ask([Ask("anna", "train.unlearn", *apart(task))], 60.0)
        process.terminate()
        assert process.wait(60.0) == 0
    assert isinstance(answer.reply, pb.UnlearnReply), answer.error
    (result,) = answer.reply.models
    return result


def _requirements(extra: str) -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in (*project["dependencies"], *project["optional-dependencies"][extra]):
        yield Requirement(text)


def _closure(wanted: Iterator[Requirement]) -> set[str]:
    """Return the names of distributions that are needed, directly or not."""
    names: set[str] = set()
    waiting = list(wanted)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in names or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        waiting += map(Requirement, importlib.metadata.requires(name) or ())
    return names
