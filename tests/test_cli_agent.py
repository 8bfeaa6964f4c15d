"""`disinherit agent` where it cannot begin; tests/test_client_agent_process.py is where it can."""

import socket
from pathlib import Path

import pytest

from disinherit.cli.main import run


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    assert run(["agent", "--config", str(path)]) == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path.write_text(
            f'owner = "anna"\nserver = "{address}"\nenrol_server = "{address}"\nca = "ca.pem"\n'
            'state = "state"\nfactory = "agent_owner_fixture:open_points"\n'
        )
        assert run(["agent", "--config", str(path)]) == 2
        assert run(["agent", "--config", str(path), "--enrol", "token"]) == 2
        (tmp_path / "ca.pem").write_text("no certificate")
        assert run(["agent", "--config", str(path), "--enrol", "token"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error"] * 4
    for line, words in zip(
        lines, ("No such file", "has enrolled", "authority", "UNAVAILABLE"), strict=True
    ):
        assert words in line
