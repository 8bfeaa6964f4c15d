"""Renewal of the service's certificate on disk by the fleet's authority, long before its expiry.

SuperLink and proxy use the same certificate, which they read at their start.
"""

import functools
import logging

from cryptography import x509

from disinherit.common.errors import CheckpointError
from disinherit.common.files import write_atomic, write_private
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.recurring import Recurring
from disinherit.server.service.listening import TlsFiles

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 3600.0


def renew(authority: CertificateAuthority, files: TlsFiles) -> bool:
    """Renew a certificate that expires soon, for the same names, and return whether it did.

    Args:
        authority: the fleet's authority; certificates of other authorities are not renewed.
        files: files of the service.
    """
    try:
        data = files.certificate.read_bytes()
        if not authority.is_due(data):
            return False
        pair = authority.issue_server(_hosts(data))
        write_private(files.key, pair.key)
        write_atomic(files.certificate, pair.certificate)
    except (OSError, CheckpointError) as error:
        _LOG.warning("The certificate in %s expires soon and cannot be renewed: %s", files, error)
        return False
    _LOG.warning(
        "The certificate in %s was renewed; restart SuperLink and proxy, which use it as well",
        files.certificate,
    )
    return True


def keep_valid(authority: CertificateAuthority, files: TlsFiles) -> Recurring:
    """Start the thread that renews a certificate when it is due; arguments are those of `renew`."""
    return Recurring(functools.partial(renew, authority, files), "renewal", _LOOK_SECONDS)


def _hosts(certificate: bytes) -> list[str]:
    found = x509.load_pem_x509_certificate(certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return [
        *names.get_values_for_type(x509.DNSName),
        *map(str, addresses),
    ]
