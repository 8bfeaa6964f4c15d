"""Description of a service, shown when it starts."""

from collections import Counter
from typing import TYPE_CHECKING

from disinherit.server.service.settings import ServeSettings
from disinherit.v1 import coordinator_pb2 as pb

if TYPE_CHECKING:  # it imports torch, which no text needs
    from disinherit.server.service.hosting import Service


def describe(settings: ServeSettings, service: "Service") -> dict[str, str]:
    """Return the name and the description of each part of a running service.

    Args:
        settings: its settings.
        service: the service.

    Raises:
        StoreError: if the store cannot be used.
    """
    system = service.setup.system()
    host = settings.listen.rpartition(":")[0]
    return {
        "version": f"disinherit {system.release}",
        "operators": f"{host}:{service.port}, {_channel(settings)}",
        "tokens": f"{settings.tokens} ({_roles(system)})",
        "approval": "campaigns wait for an approver" if system.approval else "not needed",
        "agents": _agents(settings, service),
        "store": f"{service.place} (revision {system.revision})",
        "metrics": system.metrics_url or "not served",
        "dashboard": _dashboard(settings),
        "webhooks": ", ".join(one.host for one in settings.webhooks) or "none",
        "signing": f"key {system.key_id}" if system.key_id else "nothing is signed",
    }


def _channel(settings: ServeSettings) -> str:
    tls = settings.tls
    if tls is None:
        return "plaintext, on this machine only"
    mutual = f", clients with certificates of {tls.client_ca}" if tls.client_ca else ""
    return f"TLS with {tls.certificate}{mutual}"


def _dashboard(settings: ServeSettings) -> str:
    if settings.ui is None:
        return "not served"
    secure = settings.ui.certificate is not None
    return f"{'https' if secure else 'http'}://{settings.ui.listen}"


def _roles(system: pb.System) -> str:
    roles = Counter(token.role.partition(":")[0] for token in system.tokens)
    return ", ".join(f"{number} {role}" for role, number in sorted(roles.items())) or "none"


def _agents(settings: ServeSettings, service: "Service") -> str:
    if settings.agents is None or service.fleet is None:
        return "not served"
    server = service.fleet.server
    listen, enrol = (
        f"{address.rpartition(':')[0]}:{port}"
        for address, port in (
            (settings.agents.listen, server.port),
            (settings.agents.enrol_listen, server.enrol_port),
        )
    )
    return f"{listen}, to enrol {enrol}"
