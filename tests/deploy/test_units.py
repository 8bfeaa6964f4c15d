"""Units and containers run the programs of `disinherit deploy up`, hardened and well-formed."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from disinherit.common.limits import CONNECTIONS
from disinherit.deploy import health_check, programs, proxy
from disinherit.deploy.files import ROLES, FleetFiles, Ports
from disinherit.deploy.preparation import FIRST_PORT, OWN_PORTS, prepare
from disinherit.deploy.programs import Program
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import read_settings
from tests import ROOT
from tests.support.agent import wait_for
from tests.support.image_steps import context, steps
from tests.support.pages import blocks
from tests.support.ports import free_block

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTALLED = "/opt/disinherit/bin/"
STATE = Path("/var/lib/disinherit")
PORTS = Ports(*range(FIRST_PORT, FIRST_PORT + OWN_PORTS))

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="not in a checkout")


def read_service(name: str) -> dict[str, str]:
    """Key -> values in the [Service] part of a unit, with a blank between several of one key."""
    found: dict[str, str] = {}
    text = (DEPLOY / "systemd" / f"disinherit-{name}.service").read_text()
    for line in text.replace("\\\n", " ").partition("[Service]")[2].splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key] = f"{found.get(key, '')} {value}".strip()
    return found


def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Program]:
    """The programs of the coordinator's machine, in a folder with everything, named as `STATE`."""
    monkeypatch.setattr(proxy, "require_nginx", lambda: "/usr/sbin/nginx")
    made = prepare(tmp_path / "d", hosts=["fleet.example.org"])
    files = FleetFiles(STATE, PORTS)
    run = programs.resident_run(made)
    behind = proxy.proxy(made)
    here = str(made.root)
    return {
        "coordinator": programs.coordinator(files),
        "superlink": programs.superlink(files),
        "proxy": Program("proxy", tuple(w.replace(here, str(STATE)) for w in behind.words)),
        "run": Program("run", tuple(word.replace(here, str(STATE)) for word in run.words)),
    }


def test_units_run_what_up_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, program in expected(tmp_path, monkeypatch).items():
        service = read_service(name)
        own = f"{STATE}-proxy/"  # the same files, copied for a user of its own
        words = [word.replace(own, f"{STATE}/proxy/") for word in shlex.split(service["ExecStart"])]
        words = [word.replace(f"{STATE}-proxy", f"{STATE}/proxy") for word in words]
        assert [word.removeprefix(INSTALLED) for word in words] == list(program.words), name
        if name in ("superlink", "run"):
            message = shlex.split(service["Environment"])
            assert {f"{key}={value}" for key, value in programs.OFFLINE.items()} <= set(message)
            assert f"FLWR_HOME={STATE}/flwr" in message


def test_units_of_owners_run_what_up_runs() -> None:
    files = FleetFiles(STATE, PORTS)
    node = read_service("supernode")
    options = {word for word in shlex.split(node["ExecStart"]) if word.startswith("--")}
    own = {
        word
        for word in programs.node(files, "a", "m:f", STATE, 1, 2).words
        if word.startswith("--")
    }
    assert options == own - {"--port"}  # only for several on one machine
    agent = read_service("agent")
    words = [word.removeprefix(INSTALLED) for word in shlex.split(agent["ExecStart"])]
    assert words[:3] == list(programs.agent(files, "a").words[:3])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_a_unit_and_rates_it_hardened(path: Path, tmp_path: Path) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    text = path.read_text().replace(INSTALLED, f"{binaries}/")
    text = text.replace("/usr/sbin/nginx", f"{binaries}/nginx")
    program = read_service(path.stem.removeprefix("disinherit-"))["ExecStart"].split()[0]
    (binaries / Path(program).name).symlink_to("/bin/true")
    if not (binaries / "python").exists():
        (binaries / "python").symlink_to("/bin/true")
    unit = tmp_path / path.name
    unit.write_text(text)
    for words in (["verify"], ["security", "--offline=yes", "--threshold=25"]):
        command = ["systemd-analyze", *words, str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr or words[0] == "security", done.stderr


def test_the_proxy_has_its_own_user_and_three_files(
    tmp_path: Path,
) -> None:
    service = read_service("proxy")
    others = {read_service(name)["User"] for name in ("coordinator", "superlink", "run")}
    assert service["User"] not in others
    assert service["StateDirectory"] == "disinherit-proxy"
    copied = service["ExecStartPre"].split()
    assert copied[0] == "+/usr/bin/install"
    sources = {Path(word) for word in copied if word.startswith(f"{STATE}/")}
    made = prepare(tmp_path / "d", hosts=["fleet.example.org"])
    written = {STATE / path.relative_to(made.root) for path in made.proxy.iterdir()}
    assert sources == written
    assert {path.name for path in written} == {"nginx.conf", "server.pem", "server.key", "ca.pem"}
    assert str(made.root) not in (made.proxy / "nginx.conf").read_text()
    assert {path.stat().st_mode & 0o777 for path in made.proxy.iterdir()} == {0o600}
    made.proxy.chmod(0o2770)  # as of a volume that another group uses
    again = prepare(made.root)
    assert {path.stat().st_mode & 0o777 for path in again.proxy.iterdir()} == {0o640}


@pytest.mark.parametrize("name", ["superlink", "run"])
def test_programs_with_the_database_cannot_sign(name: str, tmp_path: Path) -> None:
    made = prepare(tmp_path / "d")
    hidden = read_service(name)["InaccessiblePaths"].replace("-/", "/").split()
    settings = read_settings(made.service, {}, {})
    assert settings.signing_key is not None
    for path in (made.authority, settings.signing_key, *map(made.token_file, ROLES)):
        there = str(STATE / path.relative_to(made.root))
        assert any(there == one or there.startswith(f"{one}/") for one in hidden), there


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_has_resource_limits(path: Path) -> None:
    service = read_service(path.stem.removeprefix("disinherit-"))
    assert int(service["LimitNOFILE"]) >= 2 * CONNECTIONS.most
    assert int(service["TasksMax"]) > 0
    owners = path.stem in ("disinherit-agent", "disinherit-supernode")  # whose models may be large
    assert owners or service["MemoryMax"]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def test_containers_run_what_up_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs_of = expected(tmp_path, monkeypatch)
    made = services()
    assert set(made) == {*programs_of, "network", "prepare"}
    for name, program in programs_of.items():
        assert made[name]["command"] == list(program.words), name
        assert made[name]["network_mode"] == "service:network"


def test_containers_are_hardened_and_the_superlink_is_not_published() -> None:
    made = services()
    for name, service in made.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "network" or "ports" not in service, name
    published = {int(pair.partition(":")[0]) for pair in made["network"]["ports"]}
    assert published == {PORTS.service, PORTS.agents, PORTS.enrol, PORTS.nodes}


def test_containers_have_resource_limits_and_only_their_volumes() -> None:
    made = services()
    for name, service in made.items():
        assert service["mem_limit"], name
        assert service["pids_limit"] > 0, name
        assert service["ulimits"]["nofile"] >= 2 * CONNECTIONS.most, name
    mounted = {name: [one.partition(":")[0] for one in made[name]["volumes"]] for name in made}
    assert mounted["proxy"] == ["proxy"]
    assert made["proxy"]["user"] == "10002:10002"
    assert [name for name in made if "authority" in mounted[name]] == ["prepare", "coordinator"]
    check = made["coordinator"]["healthcheck"]["test"]
    assert check[1:4] == ["python", "-m", health_check.__name__]


def test_health_is_checked_over_tls(tmp_path: Path) -> None:
    first = free_block(OWN_PORTS)
    made = prepare(tmp_path / "d", first)
    assert not health_check.is_healthy(made.public_ca, first)
    service = Service(read_settings(made.service, {}, {}), health_seconds=0.05)
    service.start()
    try:
        assert health_check.is_healthy(made.public_ca, first, 20.0)
        (made.root / "coordinator.db").rename(made.root / "away.db")
        wait_for(lambda: not health_check.is_healthy(made.public_ca, first))
    finally:
        service.stop(0.5)


def test_what_administrators_copy_is_where_they_are_told_to_stand() -> None:
    """The commands of the page are typed in the root of a checkout."""
    lines = [
        line
        for language, text in blocks("docs/operations.md")
        if language == "sh"
        for line in text.splitlines()
        if line.startswith("install -m")
    ]
    assert lines
    for line in lines:
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True
        )
        sources = words.stdout.split()[3:-1]
        assert len(sources) == 4
        assert [one for one in sources if not (ROOT / one).is_file()] == []


def test_the_image_installs_existing_extras() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        line.partition("EXTRAS=")[2].split()[0] for line in text.splitlines() if "EXTRAS=" in line
    ]
    assert len(named) == 3
    assert {one for names in named for one in names.split(",")} <= set(
        extras["optional-dependencies"]
    )


def test_the_image_gets_every_file_of_the_package() -> None:
    """`.dockerignore` leaves all that the wheel is made of, and each `COPY` finds its source."""
    files = {str(one) for one in context()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = project["tool"]["setuptools"]["package-dir"]
    wanted = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    for package in project["tool"]["setuptools"]["packages"]:
        top = max((one for one in folders if f"{package}.".startswith(f"{one}.")), key=len)
        inner = package.removeprefix(top).strip(".").replace(".", "/")
        wanted.add("/".join(filter(None, (folders[top], inner, "__init__.py"))))
    for package, patterns in project["tool"]["setuptools"]["package-data"].items():
        if package in folders:
            found = [one for each in patterns for one in (ROOT / folders[package]).glob(each)]
            wanted |= {str(one.relative_to(ROOT)) for one in found if one.is_file()}
    assert len(wanted) > 100
    assert sorted(wanted - files) == []
    copied = [words.split()[0] for what, words in steps("installed") if what == "COPY"]
    assert copied == ["constraints.txt", "."]
    assert "constraints.txt" in files
    assert not [one for one in files if one.startswith((".git", ".venv"))]


def compose() -> list[str] | None:
    """The command line of Compose, if it is installed; it needs no engine to check a file."""
    plugin = ["docker", "compose"]
    if (
        shutil.which("docker")
        and subprocess.run([*plugin, "version"], capture_output=True).returncode == 0
    ):
        return plugin
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.mark.skipif(compose() is None, reason="Compose is not installed")
def test_compose_accepts_the_file_and_requires_the_host_name() -> None:
    command = [*(compose() or ()), "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    named = {**os.environ, "DISINHERIT_HOST": "fleet.example.org"}
    done = subprocess.run(command, env=named, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    unnamed = {key: value for key, value in named.items() if key != "DISINHERIT_HOST"}
    done = subprocess.run(command, env=unnamed, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "DISINHERIT_HOST" in done.stderr


PAGES = [ROOT / "docs" / f"{name}.md" for name in ("operations", "upkeep", "agent")]


def test_pages_run_the_command_as_the_user_of_the_units() -> None:
    """What root would write, the coordinator and the agent could not read."""
    found = [
        re.findall(r"^disinherit\(\) \{ runuser -u (\S+) -- (?:env (\S+) )?(\S+) ", text, re.M)
        for text in (page.read_text() for page in PAGES)
    ]
    assert all(found)
    coordinator, agent = read_service("coordinator"), read_service("agent")
    command = f"{INSTALLED}disinherit"
    assert {one for page in found for one in page} == {
        (coordinator["User"], "", command),
        (agent["User"], agent["Environment"], command),
    }
    assert coordinator["User"] == agent["User"]


def test_pages_name_services_and_folders_that_containers_have() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    calls = re.findall(r"docker compose (exec|run|stop|cp) ([^`|\n]+)", text)
    assert {verb for verb, _ in calls} == {"exec", "run", "stop", "cp"}
    for verb, words in calls:
        assert any(re.search(rf"\b{name}\b", words) for name in services()), f"{verb} {words}"
    volumes = {one.partition(":")[2] for one in services()["prepare"]["volumes"]}
    assert volumes == {str(STATE), str(STATE / "authority"), str(STATE / "proxy")}
    assert "ENTRYPOINT" not in (DEPLOY / "Dockerfile").read_text(), "`run prepare sh` is a shell"
