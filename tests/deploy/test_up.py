"""A whole fleet on this machine by one command: started, started again, used, and ended."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from disinherit.cli.main import run
from disinherit.deploy.files import FleetFiles, Ports
from disinherit.deploy.proxy import find_nginx
from disinherit.deploy.up import folders_without_models, supervisor_of
from tests import ROOT
from tests.support.agent import wait_for
from tests.support.owner import LABELS, PointsOwner
from tests.support.ports import free_block

HERE = ROOT
OWNER = "agent-0"


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run([*words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def processes_of(folder: Path) -> dict[int, str]:
    """What runs and names the folder or runs in one of its Flower apps."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            flower = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(entry.name) != os.getpid() and (
            str(folder) in words or f"FLWR_HOME={folder}" in flower
        ):
            found[int(entry.name)] = words
    return found


def pids(folder: Path) -> dict[str, str]:
    """Program -> process id."""
    lines = supervisor_of(folder).status().splitlines()
    return {line.split()[0]: line.partition("pid ")[2].partition(",")[0] for line in lines}


def pids_when_running(folder: Path) -> dict[str, str]:
    """Program -> process id, once none of them is on its way any more."""
    deadline = time.monotonic() + 60.0
    while not all((found := pids(folder)).values()):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_without_a_supervisor_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disinherit.deploy.programs.BINARIES", tmp_path / "bin")
    assert run(["deploy", "up", "--folder", str(tmp_path / "d")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "supervisord" in error
    assert "pip install '.[deploy]'" in error
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed")
def test_a_fleet_starts_works_and_ends_without_leftovers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "d"
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    up = ["deploy", "up", "--folder", str(folder), "--nodes", "1", "--agents", "1"]
    up += ["--agent-factory", "tests.support.agent_owner:open_points"]
    try:
        first = free_block(6)
        shown = as_json(capsys, *up, "--port", str(first))
        assert set(pids(folder)) == {"coordinator", "superlink", "proxy", "run", "node-0", OWNER}
        before = pids_when_running(folder)
        assert as_json(capsys, *up) == shown  # the same again
        assert pids(folder) == before

        forget_something(folder, shown, capsys, monkeypatch)

        os.kill(int(before[OWNER]), signal.SIGKILL)
        deadline = time.monotonic() + 60.0
        while pids(folder)[OWNER] in ("", before[OWNER]):
            assert time.monotonic() < deadline, "it was not started again"
            time.sleep(0.2)
        after = pids_when_running(folder)
        assert {name: pid for name, pid in after.items() if name != OWNER} == {
            name: pid for name, pid in before.items() if name != OWNER
        }

        assert run(["deploy", "down", "--folder", str(folder)]) == 0
        wait_for(lambda: processes_of(folder) == {})

        # After a stop, or a reboot, no option is needed: nodes, agents and factories are as before.
        monkeypatch.delenv("PYTHONPATH")
        capsys.readouterr()
        assert as_json(capsys, "deploy", "up", "--folder", str(folder)) == shown
        assert set(pids_when_running(folder)) == set(before)
        assert "tests.support.agent_owner:open_points" in (folder / f"{OWNER}.toml").read_text()
        assert set(folders_without_models(FleetFiles(folder, Ports(*range(5))))) == {"node-0"}

        assert run(["deploy", "down", "--folder", str(folder)]) == 0
        wait_for(lambda: processes_of(folder) == {})
        assert run(["deploy", "down", "--folder", str(folder)]) == 0  # the same again
        assert "nothing was running" in capsys.readouterr().out
        assert run(["deploy", "status", "--folder", str(folder)]) == 1
    finally:
        run(["deploy", "down", "--folder", str(folder)])

    capsys.readouterr()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 3))
        taken.listen()
        assert run(up) == 2
    assert f"other programs listen at [{first + 3}]" in capsys.readouterr().err
    assert run([*up, "--port", str(first + 1)]) == 2
    assert "in another folder" in capsys.readouterr().err
    files = FleetFiles(folder, Ports(*range(first, first + 5)))
    for secret in (files.key, files.node_key("node-0"), files.authority / "ca.key"):
        assert secret.stat().st_mode & 0o077 == 0, secret
    assert folder.stat().st_mode & 0o077 == 0


def forget_something(
    folder: Path,
    shown: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Have the agent's model forget cats, with the tokens that the deployment came with."""
    with PointsOwner(folder / OWNER, OWNER) as owner:
        record = owner.train("m", LABELS, 1)
    monkeypatch.setenv("DISINHERIT_SERVER", shown["service"])
    monkeypatch.setenv("DISINHERIT_CA", shown["ca"])
    operator = Path(shown["operator_token_file"]).read_text().strip()
    monkeypatch.setenv("DISINHERIT_TOKEN", operator)
    weights = folder / OWNER / "objects" / f"{record.digest}.safetensors"
    register = ["model", "register", str(weights), "--id", "m", "--owner", OWNER]
    register += [f"--label={name}" for name in LABELS]
    register += ["--dataset", "points", *(f"--samples={name}=10" for name in LABELS)]
    as_json(capsys, *register)
    submitted = as_json(capsys, "request", "submit", "--forget", "cat@m", "--reason", "test")
    assert submitted["state"] == "awaiting_approval"
    approver = Path(shown["approver_token_file"]).read_text().strip()
    as_json(capsys, "request", "approve", submitted["id"], "--token", approver)
    assert run(["request", "watch", submitted["id"]]) == 0
    capsys.readouterr()
    (covered,) = as_json(capsys, "coverage", submitted["id"])
    assert covered["state"] == "verified", covered
