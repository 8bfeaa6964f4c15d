"""gRPC servers for agents: one port with client certificates, one for enrolment.

They are asynchronous: an agent that is connected and has nothing to do takes no thread.
"""

from collections.abc import Callable
from typing import Any, cast

import grpc

from disinherit.common.errors import CampaignError
from disinherit.common.limits import CONNECTIONS, PENDING
from disinherit.server.agents.admission import AgentGates, EnrolmentGate
from disinherit.server.agents.authority import KeyPair
from disinherit.server.agents.credentials import renewing
from disinherit.server.agents.servicer import AgentsServicer
from disinherit.server.ports.doors import connection_options
from disinherit.server.ports.event_loop import waited
from disinherit.server.ports.interceptors import AsyncRefusalLog
from disinherit.v1.agents_pb2_grpc import add_AgentsServicer_to_server

MAX_AGENTS = 512
"""Default limit of connected agents."""

_KEEPALIVE = (
    # Agents behind address translation keep their connections alive with pings.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Detect agents that were switched off.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_OF_DESCRIPTORS, _ENROL_OF_DESCRIPTORS = 2, 16
"""Share of the process's descriptors, as 1/n: for agents; for enrolment."""


class AgentsServer:
    """Serves agents on two ports: one requires a client certificate, one is for enrolment.

    Each port has its own server: callers without a certificate cannot exhaust the resources of
    agents.

    Args:
        servicer: handles the calls.
        identity: returns the coordinator's current key and certificate.
        ca: certificates of the authorities that sign the agents' certificates, PEM.
        address: address for connections, `host:port`; port 0 for any free port.
        enrol_address: address for enrolment.
        agents: maximum number of connected agents.

    Attributes:
        port: port for connections.
        enrol_port: port for enrolment.

    Raises:
        CampaignError: if an address cannot be bound.
    """

    def __init__(
        self,
        servicer: AgentsServicer,
        identity: Callable[[], KeyPair],
        ca: bytes,
        address: str,
        enrol_address: str,
        agents: int = MAX_AGENTS,
    ) -> None:
        known, anybody = renewing(identity, ca), renewing(identity)
        self._servers: list[grpc.aio.Server] = []
        of_agents = connection_options(_OF_DESCRIPTORS, CONNECTIONS.most + agents)
        of_others = connection_options(_ENROL_OF_DESCRIPTORS)
        calls = PENDING.most + agents
        self.port = waited(
            self._serve(servicer, AgentGates(agents), of_agents, calls, address, known)
        )
        self.enrol_port = waited(
            self._serve(servicer, EnrolmentGate(), of_others, PENDING.most, enrol_address, anybody)
        )
        for server in self._servers:
            waited(server.start())

    def stop(self) -> None:
        """End all calls, and wait for their end: agents' streams never end by themselves."""
        for server in self._servers:
            waited(server.stop(None))

    async def _serve(
        self,
        servicer: AgentsServicer,
        gates: AgentGates | EnrolmentGate,
        options: tuple[tuple[str, int], ...],
        calls: int,
        address: str,
        credentials: grpc.ServerCredentials,
    ) -> int:
        """Add a server at an address, and return its port."""
        server = grpc.aio.server(
            interceptors=[AsyncRefusalLog(), gates],
            options=(*_KEEPALIVE, *options),
            maximum_concurrent_rpcs=calls,
        )
        # The generated types know servers with threads only.
        add_AgentsServicer_to_server(cast("Any", servicer), cast("Any", server))
        try:
            port = int(server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise CampaignError(
                f"Expected to serve agents at {address}, but got: {error}. Choose another address."
            ) from error
        self._servers.append(server)
        return port
