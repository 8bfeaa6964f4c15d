"""A campaign over agents, from the invitation to the last verified model."""

import importlib.metadata
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest

from disinherit.cli.main import run
from disinherit.client.agent import AgentConfig, enrol
from disinherit.client.agent.agent import Agent
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import read_settings
from disinherit.v1 import coordinator_pb2 as pb
from tests.support import campaign
from tests.support.agent import wait_for
from tests.support.owner import PointsOwner
from tests.support.service import Client, make_request, secret, write_tokens

ALL = pb.ListOwnersRequest()
CONFIG = """
database = "coordinator.db"
tokens = "tokens.toml"
listen = "127.0.0.1:0"

[agents]
authority = "authority"
hosts = ["127.0.0.1"]
listen = "127.0.0.1:0"
enrol_listen = "127.0.0.1:0"
"""


def test_agents_are_invited_enrolled_and_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign.build(tmp_path)
    write_tokens(tmp_path / "tokens.toml")
    (tmp_path / "serve.toml").write_text(CONFIG)
    service = Service(read_settings(tmp_path / "serve.toml", {}, {}))
    service.start()
    try:
        assert service.fleet is not None
        # One queue of those that write, for tokens as for campaigns.
        assert service.fleet.enrolment._database is service._store._database
        with (
            grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel,
            ExitStack() as agents,
        ):
            operator = Client(channel, secret("operator"))
            operator.SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
            Client(channel, secret("approver")).ApproveRequest(pb.ControlRequest(id="q"))
            watch = operator.WatchRequest(pb.GetRequestRequest(id="q"))
            next(watch)
            for name in campaign.NAMES:  # one after another: each arrival is noticed
                invited = run(
                    ["invite", name, "--config", str(tmp_path / "serve.toml"), "--format", "json"]
                )
                assert invited == 0
                invitation = json.loads(capsys.readouterr().out)
                config = AgentConfig(
                    owner=name,
                    server=f"127.0.0.1:{service.fleet.server.port}",
                    ca=Path(invitation["ca"]),
                    state=tmp_path / f"state-{name}",
                    factory="",
                    enrol_server=f"127.0.0.1:{service.fleet.server.enrol_port}",
                )
                opening = partial(PointsOwner, tmp_path / name, name)
                agents.enter_context(Agent(config, enrol(config, invitation["token"]), opening))
            statuses = list(watch)
            wait_for(lambda: all(one.online for one in operator.ListOwners(ALL).owners))
            found = operator.ListOwners(ALL).owners
        assert statuses[-1].state == pb.CAMPAIGN_STATE_COMPLETE
        assert statuses[-1].tasks == {"verified": 5}
        assert [(one.name, one.way, one.access) for one in found] == [
            (name, "agent", "enrolled") for name in campaign.NAMES
        ]
        assert {one.release for one in found} == {importlib.metadata.version("disinherit")}
    finally:
        service.stop(grace=0.5)


def test_invitations_need_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(CONFIG.partition("[agents]")[0])
    assert run(["invite", "anna", "--config", str(path)]) == 2
    assert "[agents]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [("invite", "anna"), ("confirm", "clock", "--yes"), ("confirm", "history", "--yes")]
)
def test_files_beside_a_service_are_private(
    command: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever invites before the service first starts makes its database."""
    path = tmp_path / "serve.toml"
    path.write_text(CONFIG)
    before = os.umask(0o022)
    try:
        assert run([*command, "--config", str(path)]) == 0
        assert os.umask(0o022) == 0o022  # of a program that goes on
    finally:
        os.umask(before)
    made = {file.name: file.stat().st_mode for file in {*tmp_path.rglob("*")} - {path}}
    assert "coordinator.db" in made
    assert [name for name, mode in made.items() if mode & 0o077] == []
