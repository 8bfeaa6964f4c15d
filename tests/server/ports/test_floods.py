"""Floods of each port by callers with few or no rights: others are served, and resources recover.

The service runs in its own process, so that its threads, memory and descriptors can be counted,
with the default limit of descriptors.
"""

import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from disinherit.client.agent import AgentConfig, Identity, enrol
from disinherit.common import limits
from disinherit.common.wire.messages import PROTOCOL
from disinherit.server.service.inviting import open_enrolment
from disinherit.v1 import agents_pb2
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.agents_pb2_grpc import AgentsStub
from tests.support.agent import wait_for
from tests.support.campaign import build, make_request
from tests.support.service import Client, secret, write_tokens

Code = grpc.StatusCode
DESCRIPTORS = 1024
PATIENCE = 10.0
"""Seconds for an honest call, on a machine that does other things too."""
FLOOD = 600

SERVE = """
import resource, sys
from disinherit.cli.main import run
resource.setrlimit(resource.RLIMIT_NOFILE, (%d, %d))
sys.exit(run(["serve", "--config", sys.argv[1], "--plaintext"]))
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Site:
    """A service in a process of its own.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = free_port(), free_port(), free_port()
        write_tokens(root / "tokens.toml")
        (root / "serve.toml").write_text(
            'database = "coordinator.db"\ntokens = "tokens.toml"\n'
            f'listen = "127.0.0.1:{self.ports[0]}"\n[agents]\nauthority = "authority"\n'
            f'hosts = ["127.0.0.1"]\nlisten = "127.0.0.1:{self.ports[1]}"\n'
            f'enrol_listen = "127.0.0.1:{self.ports[2]}"\n'
        )
        code = SERVE % (DESCRIPTORS, DESCRIPTORS)
        command = [sys.executable, "-c", code, str(root / "serve.toml")]
        # Plaintext for operators, on loopback; agents always have TLS.
        with (root / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)
        wait_for(lambda: b"serving on port" in (root / "serve.log").read_bytes(), 120)

    def channel(self, number: int = 0) -> grpc.Channel:
        """A connection of its own to the operators' port."""
        options = [("grpc.use_local_subchannel_pool", 1), ("number", number)]
        return grpc.insecure_channel(f"127.0.0.1:{self.ports[0]}", options)

    def enrolled(self, owner: str) -> Identity:
        with open_enrolment(self.root / "serve.toml") as (enrolment, _):
            token = enrolment.invite(owner)
        return enrol(self._config(owner), token)

    def agents_channel(self, identity: Identity) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(f"127.0.0.1:{self.ports[1]}", identity.credentials(), options)

    def usage(self) -> tuple[int, int, float]:
        """Threads, descriptors and MiB of memory of the service."""
        folder = Path(f"/proc/{self.process.pid}")
        text = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        megabytes = int(text["VmRSS"].split()[0]) / 1024
        return int(text["Threads"]), len(list((folder / "fd").iterdir())), megabytes

    def operator(self) -> grpc.StatusCode:
        """Call as an operator, over a new connection."""
        with self.channel() as channel:
            return code_of(
                lambda: Client(channel, secret("operator")).ListModels(
                    pb.ListModelsRequest(), timeout=PATIENCE
                )
            )

    def agent(self, identity: Identity, owner: str) -> grpc.StatusCode:
        """Connect as an agent, over a new connection."""
        hello = agents_pb2.FromAgent(hello=agents_pb2.Hello(protocol=PROTOCOL, owner=owner))
        outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        outgoing.put(hello)
        with self.agents_channel(identity) as channel:
            stream = AgentsStub(channel).Serve(iter(outgoing.get, None), timeout=PATIENCE)
            try:
                return code_of(lambda: next(stream))
            finally:
                outgoing.put(None)
                stream.cancel()

    def _config(self, owner: str) -> AgentConfig:
        return AgentConfig(
            owner=owner,
            server=f"127.0.0.1:{self.ports[1]}",
            ca=self.root / "authority" / "ca.pem",
            state=self.root / f"state-{owner}",
            factory="none:none",
            enrol_server=f"127.0.0.1:{self.ports[2]}",
        )


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return Code.OK


@contextmanager
def serving_process(root: Path) -> Iterator[Site]:
    """A service in a process of its own, which ends with the block."""
    site = Site(root)
    try:
        yield site
    finally:
        site.process.terminate()
        try:
            site.process.wait(30)
        finally:
            site.process.kill()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    build(root)
    with serving_process(root) as site:
        yield site


@pytest.fixture(scope="module")
def ben(site: Site) -> Identity:
    return site.enrolled("ben")


@contextmanager
def silent_calls(
    channels: list[grpc.Channel], path: str, metadata: Any = None
) -> Iterator[list[Any]]:
    """Calls, `FLOOD` in all, without a message."""
    stop = threading.Event()

    def nothing() -> Iterator[bytes]:
        stop.wait()
        yield from ()

    calls = []
    try:
        for number in range(FLOOD):
            channel = channels[number % len(channels)]
            method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
            calls.append(method(nothing(), metadata=metadata))
        yield calls
    finally:
        for call in calls:
            call.cancel()
        stop.set()
        for channel in channels:
            channel.close()


def returns(site: Site, before: tuple[int, int, float]) -> None:
    """Wait until the resources of a flood are free, except threads that wait for the next call."""
    doors = 2 * (limits.CALLS.most + limits.WATCHES.most + limits.EXPORTS.most)
    idle = doors + limits.PROBES.most + limits.ENROLMENTS.most + 20
    wait_for(lambda: site.usage()[1] <= before[1] + 16, 60)
    wait_for(lambda: site.usage()[0] <= before[0] + idle, 60)
    wait_for(lambda: site.usage()[2] <= before[2] + 100, 60)
    assert site.operator() is Code.OK


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/disinherit.v1.Coordinator/ListModels",
        "/disinherit.v1.Coordinator/WatchRequest",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    ],
)
def test_calls_without_token_and_message_do_not_block_others(site: Site, path: str) -> None:
    before = site.usage()
    with silent_calls([site.channel(number) for number in range(20)], path) as calls:
        wait_for(lambda: sum(call.done() for call in calls) > FLOOD // 2, 60)
        assert site.operator() is Code.OK
    returns(site, before)


def test_silent_calls_of_a_viewer_do_not_block_others(site: Site) -> None:
    before = site.usage()
    path = "/disinherit.v1.Coordinator/ListModels"
    metadata = [("authorization", f"Bearer {secret('viewer')}")]
    channels = [site.channel(number) for number in range(20)]
    with silent_calls(channels, path, metadata) as calls:
        wait_for(lambda: sum(call.done() for call in calls) > FLOOD // 2, 60)
        assert site.operator() is Code.OK
        assert Code.RESOURCE_EXHAUSTED in {call.code() for call in calls if call.done()}
        with site.channel() as channel:  # neither is another who only looks
            anna = Client(channel, secret("anna"))
            assert code_of(lambda: anna.ListModels(pb.ListModelsRequest())) is Code.OK
    returns(site, before)


def test_watchers_of_a_viewer_leave_room_for_other_callers_and_for_exports(site: Site) -> None:
    with site.channel() as channel, ExitStack() as leaving:
        operator, viewer = Client(channel, secret("operator")), Client(channel, secret("viewer"))
        request = pb.SubmitRequestRequest(request=make_request({"r1": ("cat",)}, "watched"))
        operator.SubmitRequest(request)
        message = pb.GetRequestRequest(id="watched")
        for _ in range(limits.CALLER_WATCHES.most):
            watch = viewer.WatchRequest(message, timeout=60)
            leaving.callback(watch.cancel)
            next(watch)
        one_more = code_of(lambda: next(viewer.WatchRequest(message)))
        assert one_more is Code.RESOURCE_EXHAUSTED
        assert code_of(lambda: list(viewer.GetGraph(pb.GetGraphRequest()))) is Code.OK
        assert code_of(lambda: list(operator.ExportAudit(pb.ExportAuditRequest()))) is Code.OK
        assert code_of(lambda: next(operator.WatchRequest(message))) is Code.OK


def test_enrolment_calls_do_not_block_agents(site: Site, ben: Identity) -> None:
    before = site.usage()
    credentials = grpc.ssl_channel_credentials(ben.ca)
    channels = [
        grpc.secure_channel(
            f"127.0.0.1:{site.ports[2]}", credentials, [("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(20)
    ]
    with silent_calls(channels, "/disinherit.v1.Agents/Enrol") as calls:
        wait_for(lambda: sum(call.done() for call in calls) > FLOOD // 2, 60)
        assert site.agent(ben, "ben") is Code.OK
        assert site.operator() is Code.OK
    assert site.enrolled("dora")
    returns(site, before)


def test_streams_of_one_agent_do_not_block_others(site: Site, ben: Identity) -> None:
    before = site.usage()
    anna = site.enrolled("anna")
    channels = [site.agents_channel(anna) for _ in range(20)]
    with silent_calls(channels, "/disinherit.v1.Agents/Serve") as calls:
        wait_for(lambda: sum(call.done() for call in calls) > FLOOD // 2, 60)
        assert site.agent(ben, "ben") is Code.OK
        assert site.operator() is Code.OK
        # Even those that were let in are ended when no hello comes.
        wait_for(lambda: all(call.done() for call in calls), 60)
    assert site.agent(anna, "anna") is Code.OK
    returns(site, before)


@pytest.mark.parametrize("port", [0, 1, 2])
def test_silent_connections_end_and_do_not_fill_other_ports(
    site: Site, ben: Identity, port: int
) -> None:
    before = site.usage()
    with ExitStack() as closing:
        for _ in range(400):
            one = closing.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", site.ports[port]))
        if port != 0:
            assert site.operator() is Code.OK
        if port != 1:
            assert site.agent(ben, "ben") is Code.OK
        # Held open by the flood, and ended by the service.
        wait_for(lambda: site.usage()[1] <= before[1] + 16, 60)
        assert site.operator() is Code.OK
        assert site.agent(ben, "ben") is Code.OK
    returns(site, before)


def test_files_written_by_a_service_are_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        mine = {write_tokens(tmp_path / "tokens.toml")}
        with serving_process(tmp_path) as site:
            wait_for(lambda: site.operator() is Code.OK)
            mine |= {tmp_path / "serve.toml", tmp_path / "serve.log"}
            made = {path.name: path.stat().st_mode for path in {*tmp_path.rglob("*")} - mine}
    finally:
        os.umask(before)
    assert {"coordinator.db", "coordinator.db-wal", "ca.pem", "ca.key"} <= made.keys()
    assert [name for name, mode in made.items() if mode & 0o077] == []
