"""Proxy in front of the SuperLink: blocked and forwarded calls, with real processes.

The SuperLink's Control API has no authentication: anyone who reaches it can run code on every node.
The first test shows this, the reason for the proxy.
"""

import functools
import http.client
import socket
import ssl
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.cli.build import build_fab_from_disk
from flwr.proto import control_pb2, fab_pb2, message_pb2

from disinherit.common.errors import CampaignError
from disinherit.deploy import programs, proxy, run_keeper
from disinherit.deploy.enrolment import admit_node
from disinherit.deploy.files import (
    CONNECTION,
    HOST,
    FleetFiles,
    Ports,
    listens,
    write_coordinator,
    write_nodes,
)
from disinherit.deploy.programs import PROXY
from tests.acceptance.fleet.processes import Processes
from tests.support.ports import free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),  # of `flwr build`
    pytest.mark.skipif(proxy.find_nginx() is None, reason="nginx is not installed"),
]
OWNER = "owner-0"
LIST_RUNS = "/v1/control/list-runs"
REGISTER = "/v1/control/register-node"


class Site:
    """A SuperLink, a proxy in front of it, and the keys of a node that is not registered yet."""

    def __init__(self, files: FleetFiles, processes: Processes) -> None:
        self.files = files
        self.processes = processes

    def call(self, port: int, path: str, body: bytes = b"", method: str = "POST") -> int:
        """Call as anybody could, without credentials; return the status."""
        context = ssl.create_default_context(cafile=str(self.files.ca))
        connection = http.client.HTTPSConnection(HOST, port, timeout=30, context=context)
        try:
            headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
            connection.request(method, path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def nodes(self) -> str:
        return self.processes.run(["flwr", "supernode", "list", CONNECTION, "--format", "json"])

    def start_run(self) -> bytes:
        """What starts a run of an app of the caller's choice."""
        content = build_fab_from_disk(run_keeper.APP)
        request = control_pb2.StartRunRequest(fab=fab_pb2.Fab(content=content))
        return request.SerializeToString()

    def register(self) -> bytes:
        key = load_ssh_public_key(self.files.node_public_key(OWNER).read_bytes())
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return control_pb2.RegisterNodeRequest(public_key=pem, name=OWNER).SerializeToString()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    files = FleetFiles(tmp_path_factory.mktemp("site") / "fleet", Ports(*free_ports(5)))
    write_coordinator(files, "coordinator.db", approval=True)
    write_nodes(files, [OWNER])
    environment = programs.flower_environment(files)
    with Processes(files.root / "logs", environment) as processes:
        for program, port in (
            (programs.superlink(files), files.ports.superlink),
            (proxy.proxy(files), files.ports.nodes),
        ):
            processes.start(program.name, program.words)
            processes.wait_for(program.name, "listen", functools.partial(listens, port), 60.0)
        yield Site(files, processes)


def test_the_control_api_of_the_superlink_has_no_authentication(site: Site) -> None:
    port = site.files.ports.superlink
    assert site.call(port, LIST_RUNS) == 200
    assert site.call(port, "/v1/control/start-run", site.start_run()) == 200


def test_the_control_api_is_not_reachable_through_the_proxy(site: Site) -> None:
    port = site.files.ports.nodes
    assert site.call(port, LIST_RUNS) == 403
    assert site.call(port, "/v1/control/start-run", site.start_run()) == 403
    assert site.call(port, REGISTER, site.register()) == 403
    assert site.call(port, "/v1/runtime/acquire-task") == 403
    assert site.call(port, "/", method="GET") == 403
    refused = site.processes.log(PROXY)
    assert "access forbidden by rule" in refused
    assert f'"POST {LIST_RUNS} HTTP/1.1"' in refused


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/%2e%2e%2fcontrol%2flist-runs",
        "/v1/fleet/x/../../control/list-runs",
        "/v1//control/list-runs",
        "/v1/fleet/pull-messages/../../control/list-runs",
        "/V1/CONTROL/list-runs",
        "/v1/fleet/",
    ],
)
def test_no_spelling_of_a_path_bypasses_the_proxy(site: Site, path: str) -> None:
    assert site.call(site.files.ports.nodes, path) in (400, 403)


@pytest.mark.parametrize("end", ["%0a", "%0d%0a", "%0a%0a"])
def test_a_line_feed_at_the_end_does_not_reach_the_superlink(site: Site, end: str) -> None:
    assert site.call(site.files.ports.nodes, f"/v1/fleet/pull-messages{end}") == 403


def test_a_fleet_path_is_forwarded(site: Site) -> None:
    # Not as it was written, which the SuperLink would take for a call to its Control API.
    assert site.call(site.files.ports.nodes, "/v1/control/../fleet/pull-messages") == 401


def test_the_superlink_still_authenticates_nodes(site: Site) -> None:
    port = site.files.ports.nodes
    assert site.call(port, "/v1/fleet/pull-messages") == 401
    assert site.call(port, "/v1/fleet/pull-messages", method="GET") == 403
    piece = message_pb2.PushObjectRequest(object_id="x", object_content=bytes(5 * 2**20))
    assert site.call(port, "/v1/fleet/push-object", piece.SerializeToString()) == 401
    assert site.call(port, "/v1/fleet/push-object", bytes(17 * 2**20)) == 413


def test_a_node_works_through_the_proxy_once_its_key_is_registered(site: Site) -> None:
    files, processes = site.files, site.processes
    program = programs.node(
        files, OWNER, "none:none", files.root, free_ports(1)[0], files.ports.nodes
    )
    processes.start(OWNER, program.words)
    with pytest.raises(CampaignError, match="registered|activate"):
        processes.wait_for(OWNER, "stay although nobody knows it", lambda: False, 60.0)
    assert not processes.running(OWNER)
    assert '"online"' not in site.nodes()
    admit_node(files, OWNER, files.node_public_key(OWNER))
    admit_node(files, OWNER, files.node_public_key(OWNER))  # the same again
    processes.start(OWNER, program.words)
    processes.wait_for(OWNER, "be online", lambda: '"online"' in site.nodes(), 60.0)


@pytest.mark.parametrize(
    ("cipher", "taken"),
    [
        ("ECDHE-ECDSA-AES256-GCM-SHA384", True),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", True),
        ("ECDHE-ECDSA-AES256-SHA384", False),
        ("ECDHE-ECDSA-AES128-SHA", False),
    ],
)
def test_the_proxy_refuses_unauthenticated_ciphers(site: Site, cipher: str, taken: bool) -> None:
    context = ssl.create_default_context(cafile=str(site.files.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with socket.create_connection((HOST, site.files.ports.nodes), 30) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=HOST) as secured:
                chosen = (secured.cipher() or ("",))[0]
        except ssl.SSLError:
            chosen = ""
    assert (chosen == cipher) is taken
