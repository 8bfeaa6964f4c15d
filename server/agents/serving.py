"""The agents' port: a gRPC server of its own, as agents prove who they are by certificates."""

from concurrent.futures import ThreadPoolExecutor

import grpc

from disinherit.common.errors import CampaignError
from disinherit.server.agents.authority import KeyPair
from disinherit.server.agents.servicer import AgentsServicer
from disinherit.server.refusal_log import RefusalLog
from disinherit.v1.agents_pb2_grpc import add_AgentsServicer_to_server

MAX_AGENTS = 512
"""Connected at once: each takes two threads, which are idle nearly always."""

_SPARE = 64  # for those who enrol and fetch
_OPTIONS = (
    # Agents behind address translation keep their connections alive with pings.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # And one that was switched off is found out.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Two coordinators on one port would each know half of the agents.
    ("grpc.so_reuseport", 0),
)


class AgentsServer:
    """Serves agents on two ports: with a client's certificate, and, to enrol, without.

    Args:
        servicer: does the work.
        identity: the coordinator's key and certificate.
        ca: certificate of the authority that signs the agents' certificates, PEM.
        address: where agents connect, as `host:port`; port 0 for any that is free.
        enrol_address: where they enrol.
        agents: how many may be connected at once.

    Attributes:
        port: where agents connect.
        enrol_port: where they enrol.

    Raises:
        CampaignError: if an address cannot be had.
    """

    def __init__(
        self,
        servicer: AgentsServicer,
        identity: KeyPair,
        ca: bytes,
        address: str,
        enrol_address: str,
        agents: int = MAX_AGENTS,
    ) -> None:
        pair = [(identity.key, identity.certificate)]
        self._server = grpc.server(
            ThreadPoolExecutor(agents + _SPARE, thread_name_prefix="agents"),
            interceptors=[RefusalLog()],
            options=_OPTIONS,
            maximum_concurrent_rpcs=agents + _SPARE,
        )
        add_AgentsServicer_to_server(servicer, self._server)
        known = grpc.ssl_server_credentials(pair, ca, require_client_auth=True)
        self.port = self._listen(address, known)
        self.enrol_port = self._listen(enrol_address, grpc.ssl_server_credentials(pair))
        self._server.start()

    def stop(self, grace: float = 0.0) -> None:
        """Stop and wait until it is done.

        Args:
            grace: seconds that calls under way may take; agents' streams never end by themselves.
        """
        self._server.stop(grace).wait()

    def _listen(self, address: str, credentials: grpc.ServerCredentials) -> int:
        try:
            port = int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise CampaignError(
                f"Expected to serve agents at {address}, but got: {error}. Choose another address."
            ) from error
        return port
