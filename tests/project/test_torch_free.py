"""The control plane without torch: what computes nothing imports it in no way."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from click import Command, Group

from disinherit.cli.commands import LazyCommand
from disinherit.cli.main import app
from disinherit.client.store.store import ModelStore
from disinherit.common.audit.chain import AuditEvent
from disinherit.v1 import coordinator_pb2 as pb
from tests.support import campaign, report
from tests.support.audit_cases import chain, export
from tests.support.service import Running, make_request, secret, write_tokens

REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Refuse())
"""
"""Begins a program in which whatever imports torch fails, and the traceback says who does."""

IMPORT = f"""{REFUSE}
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
RUN = f"""{REFUSE}
from disinherit.cli.main import run
sys.exit(run())
"""
LIBRARIES = "sqlalchemy.orm, alembic.command, grpc, rich, typer"
"""Of other projects, without which such a command cannot be: 0.4 s of CPU on a core for itself."""
LIMIT = 2.5
"""CPU time of a command that computes nothing / that of these imports, at most, in the best of
three tries.  Seconds would not do: on a core that another program shares, all of them double."""

HELP = f"""{REFUSE}
import json
from disinherit.cli.main import run
for words in json.loads(sys.argv[1]):
    if run([*words, "--help"]):
        sys.exit(f"{{words}} failed")
"""

COMPUTING = {
    *("server.service.hosting", "deploy.without_models"),
    *("server.campaign.collect", "server.campaign.fisher_checks", "server.campaign.group_merges"),
    *("server.campaign.deltas", "server.campaign.merge"),
    *("server.campaign.coordinator", "server.campaign.driver"),  # which collect
}
"""Modules of the packages below that belong to programs which compute."""

PACKAGES = (
    *("cli", "common.audit", "common.exports", "common.graph", "deploy", "families"),
    *("server.agents", "server.campaign", "server.planning", "server.ports", "server.reports"),
    *("server.service", "server.store", "server.transport", "ui"),
)
MODULES = (
    *("common.encodings", "common.errors", "common.extras", "common.files", "common.limits"),
    *("common.method", "common.settings", "common.text", "common.wire.messages"),
    *("common.wire.received", "common.wire.requests", "common.wire.samples"),
    *("client.owner.factory", "client.privacy.policy", "client.privacy.sample_keys"),
    *("client.agent.config", "client.agent.download", "client.agent.identity", "server.states"),
)


def modules_of(package: str) -> Iterator[str]:
    """The names of a package's modules; its entry points for alembic are not to be imported."""
    found = importlib.import_module(f"disinherit.{package}")
    for one in pkgutil.walk_packages(found.__path__, f"{found.__name__}."):
        if one.name.removeprefix("disinherit.") not in {*COMPUTING, "server.store.migrations.env"}:
            yield one.name


def fresh(program: str, *arguments: str, **environment: str) -> str:
    """What a program prints, in an interpreter of its own; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_no_torch(package: str) -> None:
    fresh(IMPORT, *modules_of(package))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_no_torch(module: str) -> None:
    fresh(IMPORT, f"disinherit.{module}")


def test_what_computes_is_noticed() -> None:
    with pytest.raises(AssertionError, match="torch is imported"):
        fresh(IMPORT, "disinherit.common.fiun.dampening")


def commands(command: Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, LazyCommand):
        command = command.load()
    if isinstance(command, Group):
        for name, one in command.commands.items():
            yield from commands(one, (*words, name))


def test_help_of_every_command_needs_no_torch() -> None:
    words = list(commands(typer.main.get_command(app)))
    assert ("request", "submit") in words
    fresh(HELP, json.dumps(words))


@pytest.mark.parametrize(
    "words",
    [
        "request submit --forget cat@r1 --id q --alpha 1 --lambda 0.5 --gauge 3",
        "request list",
        "model list",
        "audit export --out {folder}/audit.jsonl",
        "audit keys --out {folder}/keys.pem",
    ],
)
def test_calls_of_the_service_need_no_torch(running: Running, tmp_path: Path, words: str) -> None:
    arguments = [word.format(folder=tmp_path) for word in words.split()]
    token = secret("operator")
    fresh(RUN, *arguments, DISINHERIT_SERVER=running.address, DISINHERIT_TOKEN=token)


def test_what_became_of_a_request_is_shown_without_torch(running: Running, tmp_path: Path) -> None:
    running.client("operator").SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
    server = {"DISINHERIT_SERVER": running.address, "DISINHERIT_TOKEN": secret("approver")}
    for command in ("show", "report", "approve"):
        fresh(RUN, "request", command, "q", **server)


CONFIG = """
database = "coordinator.db"
tokens = "tokens.toml"
[agents]
authority = "authority"
hosts = ["127.0.0.1"]
listen = "127.0.0.1:0"
enrol_listen = "127.0.0.1:0"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a service that serves agents."""
    write_tokens(tmp_path / "tokens.toml")
    path = tmp_path / "serve.toml"
    path.write_text(CONFIG)
    return path


def test_what_an_administrator_says_needs_no_torch(config: Path) -> None:
    for words in ("invite anna", "revoke anna", "confirm clock --yes", "confirm history --yes"):
        fresh(RUN, *words.split(), "--config", str(config))


CPU = f"""
import resource, subprocess, sys
def used(*words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
code = "import sys; from disinherit.cli.main import run; sys.exit(run())"
for _ in range(3):
    needed, took = used("import {LIBRARIES}"), used(code, *sys.argv[1:])
    if took < {LIMIT} * needed:
        sys.exit()
sys.exit(f"{{took:.2f}} s of CPU time, where libraries alone take {{needed:.2f}} s")
"""


def test_commands_start_at_once(config: Path, running: Running) -> None:
    fresh(CPU, "invite", "anna", "--config", str(config))
    server = {"DISINHERIT_SERVER": running.address, "DISINHERIT_TOKEN": secret("operator")}
    fresh(CPU, "request", "list", **server)


def test_files_are_looked_at_without_torch(tmp_path: Path, built: Path) -> None:
    (tmp_path / "audit.jsonl").write_bytes(
        b"".join(export(chain([AuditEvent("sent", 0, "coordinator")])))
    )
    fresh(RUN, "audit", "verify", str(tmp_path / "audit.jsonl"))
    with campaign.copy(built, tmp_path / "run") as world:
        fresh(RUN, "graph", "show", str(world.place))
    (tmp_path / "report.json").write_text(json.dumps(report.make_report()))
    fresh(RUN, "report", str(tmp_path))


def test_samples_are_named_without_torch(tmp_path: Path) -> None:
    ModelStore(tmp_path / "models", "anna").close()
    (tmp_path / "ids.txt").write_text("patient 7\n")
    listed = fresh(
        *(RUN, "samples", "digest", str(tmp_path / "ids.txt")),
        *("--store", str(tmp_path / "models"), "--model", "r1"),
    )
    assert re.search("[0-9a-f]{64}", listed)
