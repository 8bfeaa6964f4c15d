"""Server credentials with certificates that are renewed while the server listens.

gRPC fetches the certificate at every handshake; open connections continue.
"""

import time
from collections.abc import Callable
from typing import cast

import grpc

from disinherit.server.agents.authority import CertificateAuthority, KeyPair

_LOOK_SECONDS = 60.0
"""Interval of looking whether a certificate is due: it reads files, and there are handshakes."""


class OwnIdentity:
    """The coordinator's key and certificate, only in memory and renewed before they expire.

    Args:
        authority: signs them.
        hosts: host names and addresses of the coordinator.
    """

    def __init__(self, authority: CertificateAuthority, hosts: tuple[str, ...]) -> None:
        self._authority = authority
        self._hosts = hosts
        self._pair = authority.issue_server(hosts)
        self._looked = time.monotonic()

    def __call__(self) -> KeyPair:
        """Return the current pair."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if self._authority.is_due(self._pair.certificate):
                self._pair = self._authority.issue_server(self._hosts)
        return self._pair


def renewing(
    pair: Callable[[], KeyPair | None], clients: bytes | None = None
) -> grpc.ServerCredentials:
    """Return credentials that follow a pair as it changes.

    Args:
        pair: returns the current key and certificate; `None` to keep the last ones.
        clients: certificates of the authorities that sign clients' certificates, PEM; if given,
            clients must present a certificate.

    Raises:
        ValueError: if the first call returns no pair.
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

    # types-grpcio omits `None`, which means no change.
    fetched = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)
    return grpc.dynamic_ssl_server_credentials(
        configuration(shown), fetched, require_client_authentication=clients is not None
    )
