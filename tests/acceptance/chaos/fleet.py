"""The federation as real processes on loopback, as `disinherit deploy up` runs them.

supervisord starts again whatever is killed.  Between agents and coordinator, and between SuperNodes
and the proxy in front of the SuperLink, is a network of our own (`Wire`).
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from disinherit.common.errors import CampaignError
from disinherit.deploy import programs, proxy
from disinherit.deploy.enrolment import enrol_agent, register_nodes, wait_for_nodes
from disinherit.deploy.files import (
    FleetFiles,
    Ports,
    listens,
    write_agent,
    write_coordinator,
    write_nodes,
)
from disinherit.deploy.orphans import end_orphans, running_for
from disinherit.deploy.programs import Program
from disinherit.deploy.supervision import Supervisor
from disinherit.server.service.inviting import open_enrolment
from disinherit.simulations.run.folder import DATABASE
from tests import ROOT
from tests.acceptance.chaos.wire import Wire
from tests.support.ports import free_ports
from tests.support.runs import copy_run

AGENTS = ("owner-2", "owner-3")
"""The owners of r1 and r6, and of r2."""

NODES = ("owner-0", "owner-1")
"""The owners of d and r3, and of s and r4."""

SERVER_APP = "flwr-serverapp"

_FACTORIES = "tests.acceptance.fleet.owners"
_ANSWER_SECONDS = 150.0
_START_SECONDS = 180.0
_RUNNING_SECONDS = 60.0
_POLL_SECONDS = 0.1
_STATUS = re.compile(r"^(\S+) +\S+ +pid (\d+),", re.MULTILINE)


class ChaosFleet:
    """A running fleet.

    Attributes:
        files: its files; the owners' models are among them.
        agents_wire: the network between agents and coordinator.
        nodes_wire: the network between SuperNodes and SuperLink.
    """

    def __init__(
        self,
        files: FleetFiles,
        database: str,
        agents_wire: Wire,
        nodes_wire: Wire,
        behind_proxy: bool,
    ) -> None:
        self.files = files
        self._database = database
        self.agents_wire = agents_wire
        self.nodes_wire = nodes_wire
        self._behind_proxy = behind_proxy
        self._supervisor = Supervisor(files.root / "logs")

    def start(self) -> None:
        """Start everything, and wait until all owners can be reached.

        Raises:
            CampaignError: if something does not come up.
        """
        files = self.files
        write_coordinator(files, self._database, approval=False)
        write_nodes(files, NODES)
        over_the_wire = replace(files, ports=replace(files.ports, agents=self.agents_wire.port))
        for owner in AGENTS:
            write_agent(over_the_wire, owner, f"{_FACTORIES}:open_for_agent")
        core = [programs.coordinator(files), programs.superlink(files)]
        if self._behind_proxy:
            core.append(proxy.proxy(files))
        self._keep(core)
        for port in (files.ports.enrol, files.ports.superlink):
            wait_until(partial(listens, port), f"port {port} to be there", _START_SECONDS)
        register_nodes(files, NODES)
        for owner in AGENTS:
            enrol_agent(files, owner)
        others = [
            programs.node(
                files,
                owner,
                f"{_FACTORIES}:open_for_node",
                files.root,
                free_ports(1)[0],
                self.nodes_wire.port,
            )
            for owner in NODES
        ]
        others += [programs.agent(files, owner) for owner in AGENTS]
        others.append(programs.resident_run(files, _ANSWER_SECONDS))
        self._keep(core + others)
        wait_for_nodes(files, NODES, self._supervisor.folder)

    def kill(self, name: str) -> bool:
        """Kill a program and all that it started by SIGKILL, and return whether it was running.

        Waits for one that is only just being started, or started again.
        """
        deadline = time.monotonic() + _RUNNING_SECONDS
        while (pid := self._pid(name)) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        with suppress(ProcessLookupError):
            if name == SERVER_APP:
                os.kill(pid, signal.SIGKILL)
            else:
                os.killpg(pid, signal.SIGKILL)
            return True
        return False

    def change_key(self, owner: str, meanwhile: Callable[[], object]) -> bool:
        """Revoke an agent's key, have another one enrolled for it, and start it with that.

        Args:
            owner: whose agent it is.
            meanwhile: done before the other key enrols.

        Returns:
            Whether the agent was running.
        """
        with open_enrolment(self.files.service) as (enrolment, _):
            enrolment.revoke(owner)
        meanwhile()
        for path in self.files.agent_state(owner).glob("agent.*"):
            path.unlink()
        enrol_agent(self.files, owner)
        return self.kill(owner)

    def end(self) -> None:
        """End everything, also what lost its parent."""
        self._supervisor.end()
        end_orphans(self.files.flower_home)

    def _keep(self, wanted: Sequence[Program]) -> None:
        environment = {
            **programs.flower_environment(self.files),
            "OMP_NUM_THREADS": "1",  # as here: more would split sums in other ways
            "PYTHONPATH": str(ROOT),  # where the factories of owners are
        }
        self._supervisor.keep([replace(one, environment=environment) for one in wanted])

    def _pid(self, name: str) -> int | None:
        if name != SERVER_APP:
            running = _STATUS.findall(self._supervisor.status())
            return next((int(pid) for program, pid in running if program == name), None)
        for pid in running_for(self.files.flower_home):
            with suppress(OSError):
                if SERVER_APP.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None


@contextmanager
def running(
    built: Path, folder: Path, random: Random, database: str | None = None
) -> Iterator[ChaosFleet]:
    """Have a fleet serve a copy of the federation for the length of a block.

    Args:
        built: the federation.
        folder: of the copy; made.
        random: chooses the bits that are flipped on the way.
        database: URL of an empty one for the coordinator; `None` for SQLite.

    Yields:
        The fleet.

    Raises:
        CampaignError: if it does not come up, or does not end.
    """
    copy_run(built, folder, database)
    files = FleetFiles(folder, Ports(*free_ports(5)))
    behind_proxy = proxy.find_nginx() is not None
    nodes_to = files.ports.nodes if behind_proxy else files.ports.superlink
    with ExitStack() as stack:
        agents_wire = stack.enter_context(Wire(files.ports.agents, random))
        nodes_wire = stack.enter_context(Wire(nodes_to, random))
        fleet = ChaosFleet(files, database or DATABASE, agents_wire, nodes_wire, behind_proxy)
        stack.callback(fleet.end)
        fleet.start()
        yield fleet


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until something holds.

    Args:
        condition: whether it does.
        what: for people to read, after "Expected".
        seconds: how long.

    Raises:
        CampaignError: if it does not come to hold.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CampaignError(f"Expected {what} within {seconds:g} s, but it did not come to it.")
        time.sleep(_POLL_SECONDS)
