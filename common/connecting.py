"""Connections: whether one stays on this machine, and why one failed, in words for people."""

import ipaddress

UNRESOLVED = "the name of the host does not resolve to an address"
"""The cause that no other program at that address can remedy."""

_CAUSES = (
    (("refused",), "the connection was refused: nothing listens there"),
    (("resolution", "resolve", "resolving", "lookup failed", "not known", "DNS"), UNRESOLVED),
    (("CERTIFICATE", "certificate"), "its certificate is not signed by the authority to trust"),
    (("SSL", "handshake", "TLS"), "one side speaks TLS and the other does not"),
    (("Timeout", "timed out"), "it did not answer in time"),
)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine only.

    Args:
        host: a name, or an address without brackets.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_cause(details: str) -> str:
    """Return why a connection failed, in words for people.

    Args:
        details: of gRPC's error.

    Example:
        >>> find_cause("failed to connect to all addresses; last error: Connection refused")
        'the connection was refused: nothing listens there'
        >>> find_cause("errors resolving fleet.org:50051: [address lookup failed]")
        'the name of the host does not resolve to an address'
    """
    for marks, cause in _CAUSES:
        if any(mark in details for mark in marks):
            return cause
    return "the connection was lost"
