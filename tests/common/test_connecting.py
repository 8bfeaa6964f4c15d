"""Why a connection failed, in words for people; and that commands and agents say it."""

from pathlib import Path

import grpc
import pytest

from disinherit.cli.main import run
from disinherit.client.agent import identity as enrol
from disinherit.client.agent.link import _cause
from disinherit.common.connecting import UNRESOLVED, find_cause
from disinherit.v1.coordinator_pb2 import ListOwnersRequest
from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

NOWHERE = "no..host.invalid:50051"
"""No name of a host, which gRPC finds out without asking anybody."""


@pytest.mark.parametrize(
    ("details", "cause"),
    [
        ("errors resolving a.b:1: [field:hostname lookup error:Domain name not found]", UNRESOLVED),
        ("DNS resolution failed for a.b:1: C-ares status is not ARES_SUCCESS", UNRESOLVED),
        ("os_error: Name or service not known syscall: getaddrinfo", UNRESOLVED),
        ("Address lookup failed for a.b: Temporary failure in name resolution", UNRESOLVED),
        ("last error: UNKNOWN: Connection refused", "the connection was refused: nothing listens "),
        ("Socket closed", "the connection was lost"),
    ],
)
def test_causes(details: str, cause: str) -> None:
    assert find_cause(details).startswith(cause)


def test_what_grpc_says_of_a_name_that_does_not_resolve() -> None:
    with grpc.insecure_channel(NOWHERE) as channel, pytest.raises(grpc.RpcError) as raised:
        CoordinatorStub(channel).ListOwners(ListOwnersRequest(), timeout=60)
    assert _cause(raised.value) == UNRESOLVED


@pytest.mark.parametrize("words", [["status"], ["request", "list"], ["doctor"]])
def test_commands_name_the_host_and_not_the_connection(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run([*words, "--server", NOWHERE])
    printed = " ".join("".join(capsys.readouterr()).split())
    assert f"Expected a coordinator at {NOWHERE}, but {UNRESOLVED}. Give its address" in printed
    assert "disinherit serve" not in printed
    assert "lost" not in printed


def test_an_agent_says_it_when_it_enrols(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(enrol, "_AGAIN_SECONDS", 0.0)
    (tmp_path / "ca.pem").write_text("of nobody")
    (tmp_path / "agent.toml").write_text(
        f'owner = "anna"\nserver = "{NOWHERE}"\nenrol_server = "{NOWHERE}"\nca = "ca.pem"\n'
        'state = "state"\nfactory = "tests.support.agent_owner:open_points"\n'
    )
    assert run(["agent", "--config", str(tmp_path / "agent.toml"), "--enrol", "token"]) == 1
    assert f"Expected to enrol at {NOWHERE}, but {UNRESOLVED}. Check" in capsys.readouterr().err
