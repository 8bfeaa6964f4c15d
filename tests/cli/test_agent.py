"""`disinherit agent`: failed starts, and visibility of its token to other users.

What it does then is in tests/client/agent/test_process.py.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.client.agent import enrol
from tests import ROOT
from tests.support.agent import AgentsSide, wait_for


def test_missing_input_prints_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{enrol.__module__}._AGAIN_SECONDS", 0.0)
    path = tmp_path / "agent.toml"
    assert run(["agent", "--config", str(path)]) == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # no server listens there
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path.write_text(
            f'owner = "anna"\nserver = "{address}"\nenrol_server = "{address}"\nca = "ca.pem"\n'
            'state = "state"\nfactory = "tests.support.agent_owner:open_points"\n'
        )
        assert run(["agent", "--config", str(path)]) == 2
        assert run(["agent", "--config", str(path), "--enrol", "token"]) == 2
        (tmp_path / "ca.pem").write_text("no certificate")
        assert run(["agent", "--config", str(path), "--enrol", "token"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error"] * 4
    refused = f"Expected to enrol at {address}, but the connection was refused: nothing listens"
    for line, words in zip(
        lines, ("No such file", "has enrolled", "authority", refused), strict=True
    ):
        assert words in line
    assert not any(word in lines[-1] for word in ("UNAVAILABLE", "ipv4", "errno", "StatusCode"))


@pytest.mark.parametrize("way", ["argument", "environment", "standard input"])
def test_spent_token_is_hidden_from_other_users(way: str, tmp_path: Path) -> None:
    with AgentsSide(tmp_path) as side:
        config, token = side.config("anna"), side.enrolment.invite("anna")
        path = tmp_path / "agent.toml"
        path.write_text(
            f'owner = "anna"\nserver = "{config.server}"\nenrol_server = "{config.enrol_server}"\n'
            f'ca = "{config.ca}"\nstate = "{config.state}"\nfactory = "{config.factory}"\n'
        )
        program = Path(sys.executable).with_name("disinherit")
        command = [str(program), "agent", "--config", str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        given = ""
        if way == "argument":
            command += ["--enrol", token]
        elif way == "environment":
            environment["DISINHERIT_ENROL_TOKEN"] = token
        else:
            command += ["--enrol", "-"]
            given = token + "\n"
        agent = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True)
        try:
            assert agent.stdin is not None
            agent.stdin.write(given)
            agent.stdin.close()
            wait_for(lambda: side.connected() == ["anna"], 120)
            shown = Path(f"/proc/{agent.pid}")
            assert token.encode() not in (shown / "cmdline").read_bytes()
            assert token.encode() not in (shown / "environ").read_bytes()
        finally:
            agent.kill()
            agent.wait()


def test_status_says_what_the_agent_of_a_device_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with AgentsSide(tmp_path) as side:
        with side.process("anna", 200_000):
            wait_for(lambda: side.connected() == ["anna"], 120)
            command = ["agent", "status", "--config", str(tmp_path / "anna.toml"), "-o", "json"]
            wait_for(lambda: run(command) == 0 and '"connected": true' in capsys.readouterr().out)
            assert run(command) == 0
            found = json.loads(capsys.readouterr().out)
            (session,) = side.hub.sessions()
            assert (found["owner"], found["key_sha256"]) == ("anna", session.key)
            assert (found["accepted"], found["bytes_per_second"]) == (True, 200_000)
            assert side.connected() == ["anna"]  # asking took nothing over
            assert run(command[:-2]) == 0
            shown = capsys.readouterr().out
            assert f"running, process {found['process']}" in shown
            assert "200.0 kB/s in each direction" in shown
        assert run(command) == 1  # it was killed
        found = json.loads(capsys.readouterr().out)
        assert (found["running"], found["connected"], found["accepted"]) == (False, False, True)
        side.enrolment.revoke("anna")
        assert run(command) == 4
        assert "was revoked" in json.loads(capsys.readouterr().out)["refusal"]
    assert run(command) == 3
    assert "nothing listens there" in json.loads(capsys.readouterr().out)["refusal"]
