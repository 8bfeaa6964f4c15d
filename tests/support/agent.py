"""A coordinator's side for agents on loopback, with certificates made for the test, and agents.

`PointsOwner`s (see `tests.support.agent_owner`) are their models: of owner "anna" in `<root>/anna`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from disinherit.client.agent import AgentConfig, Identity, enrol
from disinherit.client.agent.agent import Agent
from disinherit.client.owner.owner import Owner
from disinherit.common.limits import ALONG
from disinherit.server.agents import transport
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.fleet import Fleet, FleetSettings
from disinherit.server.store.database import Database
from disinherit.v1 import agents_pb2 as pb
from tests import ROOT
from tests.support.agent_owner import open_points


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)


def note_downloads(side: "AgentsSide", patch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the offset of each download that begins."""
    begun: list[int] = []
    chunks = side.blobs.chunks

    def noted(owner: str, digest: str, offset: int) -> Iterator[pb.Chunk]:
        begun.append(offset)
        return chunks(owner, digest, offset)

    patch.setattr(side.blobs, "chunks", noted)
    return begun


def send_none_along(patch: pytest.MonkeyPatch) -> None:
    """Have agents download all packets, also small ones."""
    patch.setattr(transport, "ALONG", replace(ALONG, most=0))


class AgentsSide:
    """What the coordinator runs for agents, and the means to set agents up.

    Args:
        root: for everything that is kept.
        port: where agents connect; 0 for any.
    """

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root = root
        self.database = Database(root / "tokens.db")
        self.arrivals: list[str] = []
        listen = f"127.0.0.1:{port}"
        settings = FleetSettings(root / "authority", ["127.0.0.1"], listen, "127.0.0.1:0", agents=8)
        fleet = Fleet(settings, self.database, self.arrivals.append)
        self.authority = CertificateAuthority.open(root / "authority")
        self.enrolment, self.hub, self.blobs = fleet.enrolment, fleet.hub, fleet.blobs
        self.transport, self.server = fleet.transport, fleet.server
        self.fleet = fleet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.stop()
        self.database.close()

    def config(self, owner: str, bytes_per_second: int = 0) -> AgentConfig:
        return AgentConfig(
            owner=owner,
            server=f"127.0.0.1:{self.server.port}",
            ca=self.root / "authority" / "ca.pem",
            state=self.root / f"state-{owner}",
            factory="tests.support.agent_owner:open_points",
            enrol_server=f"127.0.0.1:{self.server.enrol_port}",
            bytes_per_second=bytes_per_second,
        )

    def enrolled(self, owner: str) -> Identity:
        return enrol(self.config(owner), self.enrolment.invite(owner))

    def connected(self) -> list[str]:
        return sorted(session.owner for session in self.hub.sessions())

    @contextmanager
    def agent(
        self, owner: str, open_owner: Callable[[], AbstractContextManager[Owner]] | None = None
    ) -> Iterator[Agent]:
        """A connected agent of an owner, in this process."""
        config = self.config(owner)
        opening = open_owner or partial(open_points, config)
        with Agent(config, self.enrolled(owner), opening) as agent:
            wait_for(lambda: owner in self.connected())
            yield agent

    @contextmanager
    def process(
        self, owner: str, bytes_per_second: int = 0, python: str = sys.executable
    ) -> Iterator[subprocess.Popen[bytes]]:
        """An agent of an owner in a process of its own, as the command line runs it.

        The first of an owner enrols before it serves.
        """
        config = self.config(owner, bytes_per_second)
        enrolled = (config.state / "agent.pem").exists()
        token = [] if enrolled else [self.enrolment.invite(owner)]
        path = self.root / f"{owner}.toml"
        path.write_text(
            f'owner = "{owner}"\nserver = "{config.server}"\nca = "{config.ca}"\n'
            f'state = "{config.state}"\nfactory = "{config.factory}"\n'
            f'enrol_server = "{config.enrol_server}"\nbytes_per_second = {bytes_per_second}\n'
        )
        code = "import pathlib, sys; from disinherit.cli.agent import agent\n"
        code += "sys.exit(agent(pathlib.Path(sys.argv[1]), *sys.argv[2:]))"
        here = str(ROOT)
        known = os.environ.get("PYTHONPATH", "")
        environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{known}"}
        command = [python, "-c", code, str(path), *token]
        with subprocess.Popen(command, env=environment) as process:
            try:
                yield process
            finally:
                process.kill()
