"""A fleet on loopback, of real processes: coordinator, SuperLink, SuperNodes, agents, ServerApp."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from disinherit.simulations.fleet_files import CONNECTION, HOST, FleetFiles
from disinherit.simulations.fleet_processes import Processes, free_ports, listens

SERVICE, SUPERLINK = "coordinator", "superlink"
_START_SECONDS = 90.0


@dataclass(slots=True)
class RunningFleet:
    """Starts the parts of a fleet, in the order in which they need each other.

    Attributes:
        files: their configuration.
        processes: where they run.
        database: the coordinator's.
        app: folder of the Flower app.
        agents: owners that are reached through agents.
        nodes: owners that are reached through SuperNodes.
        runs: ids of the ServerApp's runs so far.
    """

    files: FleetFiles
    processes: Processes
    database: Path
    app: Path
    agents: Sequence[str]
    nodes: Sequence[str]
    runs: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start everything, and wait until all owners are connected.

        Raises:
            CampaignError: if something does not come up.
        """
        self.start_service()
        self.start_superlink()
        for owner in self.agents:
            self.start_agent(owner)
        for owner in self.nodes:
            self.register_node(owner)
            self.start_node(owner)
        self.start_run()
        for owner in self.agents:
            self.wait_for_agent(owner)
        self.wait_for_nodes(self.nodes)

    def start_service(self) -> None:
        """Start the coordinator's service."""
        self.processes.start(SERVICE, ["disinherit", "serve", "--config", self.files.service])
        self._wait_for_port(SERVICE, self.files.ports.service)
        self._wait_for_port(SERVICE, self.files.ports.agents)

    def start_superlink(self) -> None:
        """Start the SuperLink: TLS, and only nodes with registered keys are let in."""
        files = self.files
        self.processes.start(
            SUPERLINK,
            [
                "flower-superlink",
                *("--host", HOST, "--port", str(files.ports.superlink)),
                *("--ssl-ca-certfile", files.ca),
                *("--ssl-certfile", files.certificate, "--ssl-keyfile", files.key),
                *("--database", files.root / "superlink.db"),
                "--enable-supernode-auth",
            ],
        )
        self._wait_for_port(SUPERLINK, files.ports.superlink)

    def start_agent(self, owner: str) -> None:
        """Enrol an agent with a one-time token, and start it."""
        token = self.processes.run(
            ["disinherit", "invite", owner, "--config", self.files.service]
        ).strip()
        config = self.files.agent(owner)
        self.processes.start(owner, ["disinherit", "agent", "--config", config, "--enrol", token])

    def register_node(self, owner: str) -> None:
        """Make a SuperNode's key known to the SuperLink."""
        public = self.files.node_key(owner).with_suffix(".pub")
        self.processes.run(["flwr", "supernode", "register", public, CONNECTION, "--name", owner])

    def start_node(self, owner: str, superlink: int | None = None) -> None:
        """Start a SuperNode.

        Args:
            owner: whose models it serves.
            superlink: port of the SuperLink, or of a proxy in front of it.
        """
        root = self.files.root
        configuration = (
            f'owner="{owner}" folder="{root}" '
            'factory="disinherit.simulations.fleet_owners:open_for_node"'
        )
        self.processes.start(
            owner,
            [
                "flower-supernode",
                *("--superlink", f"{HOST}:{superlink or self.files.ports.superlink}"),
                *("--root-certificates", self.files.ca),
                *("--auth-supernode-private-key", self.files.node_key(owner)),
                *("--port", str(free_ports(1)[0])),
                *("--node-config", configuration),
            ],
        )

    def start_run(self) -> None:
        """Start a run of the ServerApp that stays."""
        configuration = (
            f"database={json.dumps(str(self.database))} "
            f"owners={json.dumps(str(self.files.owners))} stay-seconds=86400.0 timeout=600.0"
        )
        printed = self.processes.run(
            ["flwr", "run", self.app, CONNECTION, "--run-config", configuration, "--format", "json"]
        )
        self.runs.append(str(json.loads(printed)["run-id"]))

    def wait_for_agent(self, owner: str) -> None:
        """Wait until an agent is connected."""
        self.processes.wait_for(
            owner, "connect", lambda: "Connected to" in self.processes.log(owner), _START_SECONDS
        )

    def wait_for_nodes(self, owners: Sequence[str]) -> None:
        """Wait until the latest run of the ServerApp sees SuperNodes."""

        def seen() -> bool:
            log = self.processes.run(["flwr", "log", self.runs[-1], CONNECTION, "--show"])
            lines = [
                line.partition("connected: ")[2].strip()
                for line in log.splitlines()
                if "connected: " in line
            ]
            return bool(lines) and set(owners) <= set(lines[-1].split(", "))

        self.processes.wait_for(SUPERLINK, "see all nodes", seen, _START_SECONDS)

    def _wait_for_port(self, name: str, port: int) -> None:
        self.processes.wait_for(name, "listen", lambda: listens(port), _START_SECONDS)
