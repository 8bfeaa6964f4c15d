"""A campaign over agents, from the invitation to the last verified model."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import campaign_fixture
import grpc
import pytest
from owner_fixture import PointsOwner
from service_fixture import Client, make_request, secret, write_tokens

from disinherit.cli.main import run
from disinherit.client.agent import AgentConfig, enrol
from disinherit.client.agent.agent import Agent
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import read_settings
from disinherit.v1 import coordinator_pb2 as pb

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
    campaign_fixture.build(tmp_path)
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
            for name in campaign_fixture.NAMES:  # one after another: each arrival is noticed
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
        assert statuses[-1].state == pb.CAMPAIGN_STATE_COMPLETE
        assert statuses[-1].tasks == {"verified": 5}
    finally:
        service.stop(grace=0.5)


def test_nobody_is_invited_without_a_fleet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(CONFIG.partition("[agents]")[0])
    assert run(["invite", "anna", "--config", str(path)]) == 2
    assert "[agents]" in capsys.readouterr().err
