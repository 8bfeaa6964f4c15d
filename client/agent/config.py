"""The agent's configuration: one TOML file without unknown keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, field

from disinherit.client.agent.hours import Hours, parse_hours
from disinherit.client.owner.factory import FUNCTION
from disinherit.client.privacy.acceptance import ANYBODY, AcceptancePolicy, read_acceptance
from disinherit.client.privacy.policy import OPEN, ReleasePolicy, read_policy
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.settings import Filled, Table, located, read

_Address = Annotated[str, Meta(pattern=r"^[^\s/]+:\d{1,5}\Z", description="host:port")]


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The settings of an agent.

    Attributes:
        owner: name of the owner of the models on this device.
        server: the coordinator's port for agents, as `host:port`.
        ca: PEM file with the certificate of the fleet's authority.
        state: folder for key, certificate and downloads; the factory may keep the models there.
        factory: `module:function`; called with this configuration, it returns a context manager
            that opens the `disinherit.client.owner.owner.Owner` for one task.
        enrol_server: the coordinator's port for enrolment; needed only to enrol.
        bytes_per_second: limit for each direction; 0 for no limit.
        hours: hours of participation, in the device's time zone; `None` for always.
        release: conditions on the Fisher information that leaves the device, in addition to those
            of the factory's owner.
        acceptance: conditions on the changes of roots that are added to models on the device,
            likewise.
    """

    owner: str
    server: str
    ca: Path
    state: Path
    factory: str
    enrol_server: str = ""
    bytes_per_second: int = 0
    hours: Hours | None = None
    release: ReleasePolicy = OPEN
    acceptance: AcceptancePolicy = ANYBODY


class _AgentFile(Table):
    """The agent of a device; `disinherit agent --config agent.toml`.

    Attributes:
        owner: name of the owner of the models on this device.
        server: the coordinator's address for agents.
        ca: file of the certificate of the fleet's authority, PEM.
        state: folder for key, certificate and downloads; the factory may keep the models there.
        factory: function that opens the owner of the models for one task.
        enrol_server: the coordinator's address for enrolment; needed only to enrol.
        bytes_per_second: limit of bytes in each second, up and down, each; 0 for no limit.
        hours: when it takes part, such as `22:00-06:00` in the time of the device; always without
            it.
        release: conditions on what leaves this device; below.
        acceptance: whose changes are added to models here; below.
    """

    owner: Filled
    server: _Address
    ca: Filled
    state: Filled
    factory: Annotated[
        str, Meta(pattern=rf"^(?:{FUNCTION.pattern})\Z", description="module:function")
    ]
    enrol_server: _Address = ""
    bytes_per_second: Annotated[int, Meta(ge=0)] = 0
    hours: str = ""
    release: dict[str, Any] = field(default_factory=dict)
    acceptance: dict[str, Any] = field(default_factory=dict)


def read_config(path: Path) -> AgentConfig:
    """Read a configuration; relative paths start at its own folder.

    Raises:
        InputError: if the file cannot be read, a key is missing or unknown, or a value is wrong.
    """
    found = read(_AgentFile, path, "an agent's configuration at")
    with located(f"owner in {str(path)!r}"):
        check_owner(found.owner)
    with located(f"hours in {str(path)!r}"):
        hours = parse_hours(found.hours) if found.hours else None
    return AgentConfig(
        owner=found.owner,
        server=found.server,
        ca=path.parent / found.ca,
        state=path.parent / found.state,
        factory=found.factory,
        enrol_server=found.enrol_server,
        bytes_per_second=found.bytes_per_second,
        hours=hours,
        release=read_policy(found.release, f"[release] of {str(path)!r}"),
        acceptance=read_acceptance(found.acceptance, f"[acceptance] of {str(path)!r}"),
    )
