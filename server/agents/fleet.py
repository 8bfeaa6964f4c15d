"""The agents' side of a coordinator put together: authority, enrolment, hub and server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.blobs import Blobs
from disinherit.server.agents.credentials import OwnIdentity
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.agents.hub import Hub
from disinherit.server.agents.revocation import Sweep
from disinherit.server.agents.servicer import AgentsServicer
from disinherit.server.agents.serving import MAX_AGENTS, AgentsServer
from disinherit.server.agents.transport import AgentTransport
from disinherit.server.store.database import Database


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What the agents' side needs to know.

    Attributes:
        authority: folder of the fleet's certificate authority; made if there is none. Its
            `ca.pem` is what every agent needs.
        hosts: names and addresses under which agents reach the coordinator.
        listen: where agents connect, as `host:port`; port 0 for any that is free.
        enrol_listen: where they enrol.
        agents: how many may be connected at once.
    """

    authority: Path
    hosts: Sequence[str]
    listen: str
    enrol_listen: str
    agents: int = MAX_AGENTS


class Fleet:
    """Serves agents from now on, until it is stopped.

    Args:
        settings: what it is told.
        database: holds the tokens.
        arrived: called with an owner's name whenever its agent has connected.

    Attributes:
        enrolment: gives out tokens.
        transport: the way to the owners whose agents are connected.
        hub: knows who is connected.
        blobs: what agents fetch.
        server: listens.
        authority: signs certificates.

    Raises:
        StoreError: if the authority or the database cannot be used.
        CheckpointError: if the authority's folder cannot be written to.
        CampaignError: if an address cannot be had.
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
        self.server = AgentsServer(
            AgentsServicer(self.hub, self.blobs, self.enrolment),
            OwnIdentity(authority, tuple(settings.hosts)),
            authority.trusted,
            settings.listen,
            settings.enrol_listen,
            settings.agents,
        )
        self._sweep = Sweep(database, self.hub)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reaches(self, owner: str) -> bool:
        """Return whether an owner's agent is connected."""
        return self.hub.away(owner) == 0.0

    def stop(self) -> None:
        """End all connections and stop; what was not answered is asked again later."""
        self._sweep.stop()
        self.server.stop()
