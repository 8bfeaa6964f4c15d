"""Credentials of servers whose certificates are renewed while they listen.

gRPC asks at every handshake whether there is another certificate; connections that are open go on.
"""

from collections.abc import Callable
from typing import cast

import grpc

from disinherit.server.agents.authority import CertificateAuthority, KeyPair


class OwnIdentity:
    """The coordinator's key and certificate in memory, on no disk: made anew before they end.

    Args:
        authority: signs them.
        hosts: names and addresses under which agents reach the coordinator.
    """

    def __init__(self, authority: CertificateAuthority, hosts: tuple[str, ...]) -> None:
        self._authority = authority
        self._hosts = hosts
        self._pair = authority.issue_server(hosts)

    def __call__(self) -> KeyPair:
        """Return what is good now."""
        if self._authority.is_due(self._pair.certificate):
            self._pair = self._authority.issue_server(self._hosts)
        return self._pair


def renewing(
    pair: Callable[[], KeyPair | None], clients: bytes | None = None
) -> grpc.ServerCredentials:
    """Return credentials that follow a pair as it changes.

    Args:
        pair: returns the key and certificate that are good now; `None` to go on with the last.
        clients: certificates of the authorities that sign clients' certificates, PEM; with them,
            clients must show one.

    Raises:
        ValueError: if there is no pair to begin with.
    """
    shown = pair()
    if shown is None:
        raise ValueError("Expected a key and a certificate to begin with, but got none.")

    def configuration(found: KeyPair) -> grpc.ServerCertificateConfiguration:
        pairs = [(found.key, found.certificate)]
        return grpc.ssl_server_certificate_configuration(pairs, root_certificates=clients)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        found = pair()
        if found is None or found == shown:
            return None
        shown = found
        return configuration(found)

    # types-grpcio leaves out that there may be nothing new.
    fetched = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)
    return grpc.dynamic_ssl_server_credentials(
        configuration(shown), fetched, require_client_authentication=clients is not None
    )
