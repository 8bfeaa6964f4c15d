"""Another address of a deployment: its ports and host names, in all files that have them."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from disinherit.common.errors import InputError, StoreError
from disinherit.common.files import write_atomic
from disinherit.deploy.files import FleetFiles, listens, service_addresses
from disinherit.deploy.preparation import prepared, remember_address


def move(folder: Path, first_port: int | None, hosts: Sequence[str]) -> FleetFiles:
    """Give a stopped deployment other ports or host names; all keys and data stay.

    The same authority issues a certificate for the new names, so owners need only the new address.
    Comments in `serve.toml` are lost.

    Args:
        folder: of the deployment.
        first_port: first of consecutive ports; `None` for the deployment's.
        hosts: host names and addresses of this machine; empty for the deployment's.

    Raises:
        InputError: if there is no deployment, it is running, or the ports are invalid.
        StoreError: if a file cannot be read or written.
    """
    before = prepared(folder)
    if listens(before.ports.service):
        raise InputError(
            f"Expected a deployment that is stopped, but a program listens at port "
            f"{before.ports.service}. Stop it first."
        )
    remember_address(before.root, first_port, hosts)
    # Issued again for the new names.
    before.key.unlink(missing_ok=True)
    before.certificate.unlink(missing_ok=True)
    after = prepared(folder)
    try:
        settings: dict[str, Any] = tomllib.loads(after.service.read_text())
        addresses = service_addresses(after)
        settings["listen"] = addresses["listen"]
        settings["agents"] |= addresses["agents"]
        write_atomic(after.service, tomli_w.dumps(settings).encode())
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"Expected the configuration of a deployment in {after.service}, but: {error!r}."
        ) from error
    return after
