"""Preparation of a deployment: addresses, keys, certificates and configuration.

`disinherit deploy up` then runs the programs under supervisord.  After `disinherit deploy prepare`,
systemd or containers (`systemd/`, `compose.yaml`) run them with the same files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import field
from msgspec.structs import asdict

from disinherit.common.errors import InputError, StoreError
from disinherit.common.files import write_atomic
from disinherit.common.settings import Table, check
from disinherit.common.text import load_json
from disinherit.deploy.files import HOST, FleetFiles, Ports, write_coordinator, write_nodes
from disinherit.deploy.proxy import write_proxy

FIRST_PORT = 50051
OWN_PORTS = 5
"""Number of the coordinator's ports: service, agents, enrolment, nodes, SuperLink."""

_ANYWHERE = "0.0.0.0"
_DATABASE = "coordinator.db"
_SETTINGS = "deployment.json"


class _Deployment(Table):
    first_port: int
    hosts: list[str]
    programs: dict[str, Any] = field(default_factory=dict)


def prepare(
    folder: Path,
    first_port: int | None = None,
    hosts: Sequence[str] = (),
    database: str = _DATABASE,
    *,
    more_ports: int = 0,
) -> FleetFiles:
    """Write missing keys, certificates, tokens, and configurations of all programs.

    Args:
        folder: folder of the deployment, created if missing.
        first_port: first of consecutive ports; `None` for the deployment's, 50051 for a new one.
        hosts: host names and addresses of this machine; empty for the deployment's. A new one
            without hosts listens on loopback only.
        database: database of a new deployment's coordinator: a file in the folder, or an SQLAlchemy
            URL.
        more_ports: number of ports needed after the coordinator's.

    Returns:
        The files of the deployment.

    Raises:
        InputError: if the ports are invalid, or differ from the deployment's.
        StoreError: if the folder cannot be used.
    """
    folder = folder.absolute()
    path = folder / _SETTINGS
    known = _read(path)
    first = first_port or (FIRST_PORT if known is None else known.first_port)
    names = list(hosts) or ([] if known is None else known.hosts)
    _check_port(first, more_ports)
    if known is not None and (first, names) != (known.first_port, known.hosts):
        raise InputError(
            f"Expected the ports from {known.first_port} on and the hosts {known.hosts}, "
            f"with which the deployment in {folder} was made, but got {first} and {names}. They "
            "are in certificates and configurations: stop it and `disinherit deploy move`, or make "
            "another deployment in another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"Expected a folder for the deployment, but: {error}.") from error
    if known is None:
        _write(path, {"first_port": first, "hosts": names})
    ports = Ports(*range(first, first + OWN_PORTS))
    address = _ANYWHERE if names else HOST
    files = FleetFiles(folder, ports, address, [*names, HOST, "localhost"])
    write_coordinator(files, database, approval=True)
    write_nodes(files, ())
    write_proxy(files)
    return files


def prepared(folder: Path) -> FleetFiles:
    """Return the files of an existing deployment.

    Args:
        folder: folder of the deployment.

    Raises:
        InputError: if there is no deployment.
        StoreError: if the folder cannot be used.
    """
    if not (folder / _SETTINGS).exists():
        raise InputError(
            f"Expected a deployment in {str(folder)!r}, but there is none. Make one: disinherit "
            "deploy prepare --folder FOLDER."
        )
    return prepare(folder)


def remember_address(folder: Path, first_port: int | None, hosts: Sequence[str]) -> None:
    """Store other ports or host names of a deployment, which the next `prepare` uses.

    Args:
        folder: folder of a prepared deployment.
        first_port: first of consecutive ports; `None` for the deployment's.
        hosts: host names and addresses of its machine; empty for the deployment's.

    Raises:
        InputError: if the ports are invalid.
        StoreError: if the folder cannot be used.
    """
    known = _read(folder / _SETTINGS)
    assert known is not None
    if first_port is not None:
        _check_port(first_port, 0)
        known.first_port = first_port
    known.hosts = list(hosts) or known.hosts
    _write(folder / _SETTINGS, asdict(known))


def remembered_programs(folder: Path) -> dict[str, Any]:
    """Return the settings of the nodes and agents that a deployment ran last.

    Args:
        folder: folder of the deployment.

    Returns:
        Name of a setting -> its value; empty before the first run.

    Raises:
        StoreError: if the folder cannot be used.
    """
    known = _read(folder / _SETTINGS)
    return {} if known is None else known.programs


def remember_programs(folder: Path, programs: Mapping[str, Any]) -> None:
    """Store the settings of the nodes and agents that a deployment runs, for its next start.

    Args:
        folder: folder of a prepared deployment.
        programs: name of a setting -> its value.

    Raises:
        StoreError: if the folder cannot be used.
    """
    path = folder / _SETTINGS
    known = _read(path)
    if known is not None and known.programs != dict(programs):
        known.programs = dict(programs)
        _write(path, asdict(known))


def _check_port(first: int, more_ports: int) -> None:
    if not 1024 <= first <= 65535 - OWN_PORTS - more_ports:
        raise InputError(f"Expected a first port between 1024 and 65000, but got {first}.")


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    try:
        write_atomic(path, json.dumps(settings).encode())
    except OSError as error:
        raise StoreError(f"Expected to write a deployment's settings: {error}.") from error


def _read(path: Path) -> _Deployment | None:
    """Return the stored settings of a deployment; `None` before the first write."""
    try:
        return check(_Deployment, load_json(path.read_text()), str(path)) if path.exists() else None
    except (OSError, ValueError) as error:
        raise StoreError(f"Expected a deployment's ports and hosts in {path}: {error}.") from error
