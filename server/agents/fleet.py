"""Assembly of the coordinator's agent side: authority, enrolment, hub and server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.blobs import Blobs
from disinherit.server.agents.credentials import OwnIdentity
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.agents.hub import Hub
from disinherit.server.agents.revocation import keep_out
from disinherit.server.agents.servicer import AgentsServicer
from disinherit.server.agents.serving import MAX_AGENTS, AgentsServer
from disinherit.server.agents.transport import AgentTransport
from disinherit.server.recurring import Recurring
from disinherit.server.store.database import Database
from disinherit.server.store.presence import Attendance

_COUNT_SECONDS = 1.0
"""Interval of looking for agents that came or went; an agent that returns sooner never left."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Settings of the agent side.

    Attributes:
        authority: folder of the fleet's certificate authority, created if missing. Every agent
            needs its `ca.pem`.
        hosts: host names and addresses of the coordinator.
        listen: address for connections, `host:port`; port 0 for any free port.
        enrol_listen: address for enrolment.
        agents: maximum number of connected agents.
    """

    authority: Path
    hosts: Sequence[str]
    listen: str
    enrol_listen: str
    agents: int = MAX_AGENTS


class Fleet:
    """A running server for agents; `stop` ends it.

    Args:
        settings: its settings.
        database: holds the tokens.
        arrived: called with the owner's name whenever its agent connects.

    Attributes:
        enrolment: issues tokens.
        transport: carries messages to connected agents.
        hub: the connected agents.
        blobs: packets for download.
        server: the gRPC servers.
        authority: signs certificates.

    Raises:
        StoreError: if the authority or the database cannot be used.
        CheckpointError: if the authority's folder cannot be written to.
        CampaignError: if an address cannot be bound.
    """

    def __init__(
        self,
        settings: FleetSettings,
        database: Database,
        arrived: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.authority = authority = CertificateAuthority.open(settings.authority)
        self.enrolment = Enrolment(database, authority)
        self.hub = Hub(arrived)
        self.blobs = Blobs()
        self.transport = AgentTransport(self.hub, self.blobs)
        self._servicer = AgentsServicer(self.hub, self.blobs, self.enrolment)
        self.server = AgentsServer(
            self._servicer,
            OwnIdentity(authority, tuple(settings.hosts)),
            authority.trusted,
            settings.listen,
            settings.enrol_listen,
            settings.agents,
        )
        self._sweep = keep_out(database, self.hub)
        self._attendance = Attendance(database, "agent")
        self._counting = Recurring(
            lambda: self._attendance.keep(self.hub.present()), "attendance", _COUNT_SECONDS
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reaches(self, owner: str) -> bool:
        """Return whether an owner's agent is connected."""
        return self.hub.away(owner) == 0.0

    def stop(self) -> None:
        """End all connections and stop; unanswered tasks are sent again later."""
        self._sweep.stop()
        self._counting.stop()
        self.server.stop()
        self._servicer.close()
        self._attendance.keep({})
