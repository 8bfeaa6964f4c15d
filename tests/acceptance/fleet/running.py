"""A fleet on loopback, of real processes: coordinator, SuperLink, SuperNodes, agents, ServerApp."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from disinherit.deploy import programs, proxy
from disinherit.deploy.files import CONNECTION, FleetFiles, listens
from disinherit.deploy.programs import COORDINATOR, PROXY, SUPERLINK, Program
from tests.acceptance.fleet.processes import Processes
from tests.support.ports import free_ports

_NODE_FACTORY = "tests.acceptance.fleet.owners:open_for_node"
_START_SECONDS = 90.0


@dataclass(slots=True)
class RunningFleet:
    """Starts the parts of a fleet, in the order in which they need each other.

    Attributes:
        files: their configuration.
        processes: where they run.
        app: folder of the Flower app.
        agents: owners that are reached through agents.
        nodes: owners that are reached through SuperNodes.
        proxied: whether nodes come through the proxy: they do where nginx is installed.
        runs: ids of the ServerApp's runs so far.
    """

    files: FleetFiles
    processes: Processes
    app: Path
    agents: Sequence[str]
    nodes: Sequence[str]
    proxied: bool = field(default_factory=lambda: proxy.find_nginx() is not None)
    runs: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start everything, and wait until all owners are connected.

        Raises:
            CampaignError: if something does not come up.
        """
        self.start_service()
        self.start_superlink()
        if self.proxied:
            self.start_proxy()
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
        self._start(programs.coordinator(self.files))
        self._wait_for_port(COORDINATOR, self.files.ports.service)
        self._wait_for_port(COORDINATOR, self.files.ports.agents)

    def start_superlink(self) -> None:
        """Start the SuperLink: TLS, and only nodes with registered keys are let in."""
        self._start(programs.superlink(self.files))
        self._wait_for_port(SUPERLINK, self.files.ports.superlink)

    def start_proxy(self) -> None:
        """Start the proxy, which keeps all but the fleet endpoints from the nodes."""
        self._start(proxy.proxy(self.files))
        self._wait_for_port(PROXY, self.files.ports.nodes)

    def start_agent(self, owner: str) -> None:
        """Enrol an agent with a one-time token, and start it."""
        token = self.processes.run(
            ["disinherit", "invite", owner, "--config", self.files.service]
        ).strip()
        config = self.files.agent(owner)
        self.processes.start(owner, ["disinherit", "agent", "--config", config, "--enrol", token])

    def register_node(self, owner: str) -> None:
        """Make a SuperNode's key known to the SuperLink."""
        public = self.files.node_public_key(owner)
        self.processes.run(["flwr", "supernode", "register", public, CONNECTION, "--name", owner])

    def start_node(self, owner: str, superlink: int | None = None) -> None:
        """Start a SuperNode.

        Args:
            owner: whose models it serves.
            superlink: port of what it connects to; `None` for the proxy if it runs, else the
                SuperLink.
        """
        ports = self.files.ports
        if superlink is None:
            superlink = ports.nodes if self.proxied else ports.superlink
        own = free_ports(1)[0]
        root = self.files.root
        self._start(programs.node(self.files, owner, _NODE_FACTORY, root, own, superlink))

    def start_run(self) -> None:
        """Start a run of the ServerApp that stays."""
        configuration = programs.run_configuration(self.files.service, self.files.owners)
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

    def _start(self, program: Program) -> None:
        self.processes.start(program.name, program.words)

    def _wait_for_port(self, name: str, port: int) -> None:
        self.processes.wait_for(name, "listen", lambda: listens(port), _START_SECONDS)
